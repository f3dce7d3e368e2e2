//! Tenants on the Docker Engine: limits, isolation, adoption, and that nothing is left.

use std::time::Duration;

use futures::StreamExt as _;
use systemprompt::server::providers::{LogQuery, MachineState, Provider, ProviderError};

use crate::installation::{Installation, docker, succeeds_in};
use crate::need;

const GRACE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_tenant_comes_serves_and_leaves_nothing() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let tenant = installation.made_tenant("acme", 0).await;
    // Everything may be called again.
    assert_eq!(provider.create_app(&tenant).await.expect("networks").len(), 2);
    provider.create_volume(&tenant).await.expect("volume");

    let spec = installation.release(&tenant, 1);
    let machine = installation.start(&spec).await;
    assert_eq!(
        provider.start_machine(&spec).await.expect("again").external_id,
        machine
    );
    assert_eq!(
        provider.machine_state(&machine).await.expect("state"),
        MachineState::Running
    );
    assert_eq!(
        provider.list_machines(&tenant).await.expect("list"),
        [machine.as_str()]
    );
    assert_eq!(
        provider.list_resources(&tenant).await.expect("resources").len(),
        4
    );
    let refused = provider
        .remove_app(&tenant)
        .await
        .expect_err("a machine is in it");
    assert!(
        matches!(
            refused,
            ProviderError::Fatal {
                code: "network-in-use",
                ..
            }
        ),
        "{refused:?}"
    );

    provider.stop_machine(&machine, GRACE).await.expect("stopped");
    provider
        .stop_machine(&machine, GRACE)
        .await
        .expect("stopped again");
    assert_eq!(
        provider.machine_state(&machine).await.expect("state"),
        MachineState::Absent
    );
    for _ in 0..2 {
        provider.remove_volume(&tenant).await.expect("volume removed");
        provider.remove_app(&tenant).await.expect("networks removed");
    }
    assert_eq!(provider.list_resources(&tenant).await.expect("resources"), []);
    assert_eq!(installation.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_is_fenced_in() {
    need!(Installation::available());
    let installation = Installation::new();
    let tenant = installation.made_tenant("acme", 0).await;
    let machine = installation.start(&installation.release(&tenant, 1)).await;
    let shown = docker(&[
        "inspect",
        "--format",
        "{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.NanoCpus}} {{.PidsLimit}} {{.CapDrop}} {{.SecurityOpt}} \
         {{.ReadonlyRootfs}} {{json .PortBindings}}{{end}} {{.Config.User}}",
        &machine,
    ]);
    assert_eq!(
        shown.trim(),
        "268435456 268435456 1000000000 256 [ALL] [no-new-privileges:true] true null 1000"
    );
    assert!(succeeds_in(
        &machine,
        "echo kept > /app/data/file && echo gone > /tmp/file"
    ));
    assert!(!succeeds_in(&machine, "echo x > /app/file"));
    let labels = docker(&[
        "inspect",
        "--format",
        "{{json .Config.Labels}}{{.Path}}{{.Args}}",
        &machine,
    ]);
    assert!(
        labels.contains(tenant.tenant_id.as_str()) && !labels.contains("hello-secret"),
        "{labels}"
    );
}

#[tokio::test]
async fn a_command_runs_once_per_release() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let tenant = installation.made_tenant("acme", 0).await;
    let script = "echo run >> /app/data/runs; echo out; echo err >&2; exit 3";
    let spec = installation.running(&tenant, 1, &["sh", "-c", script]);
    // The first caller dies in the middle; the second finds what it began.
    let _ = tokio::time::timeout(Duration::from_millis(400), provider.run_command(&spec, MINUTE)).await;
    let (one, two) = tokio::join!(
        provider.run_command(&spec, MINUTE),
        provider.run_command(&spec, MINUTE)
    );
    let (outcome, again) = (one.expect("ran"), two.expect("ran"));
    assert_eq!(outcome, again);
    assert_eq!(outcome.exit_code, 3);
    let mut lines = outcome.log_tail.clone();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);

    let machine = installation.start(&installation.release(&tenant, 1)).await;
    assert!(succeeds_in(&machine, "test \"$(cat /app/data/runs)\" = run"));
    // Its container is gone, so that a new try of the release would run it again.
    let resources = provider.list_resources(&tenant).await.expect("resources");
    assert!(
        resources.iter().all(|made| made.kind != "command"),
        "{resources:?}"
    );
}

#[tokio::test]
async fn a_command_that_does_not_end_is_ended() {
    need!(Installation::available());
    let installation = Installation::new();
    let tenant = installation.made_tenant("acme", 0).await;
    let spec = installation.running(&tenant, 1, &["sleep", "600"]);
    let outcome = installation
        .provider()
        .run_command(&spec, Duration::from_secs(2))
        .await
        .expect("killed");
    assert_eq!(outcome.exit_code, 137);
    assert_eq!(outcome.log_tail, ["killed: it ran longer than 2 seconds"]);
}

#[tokio::test]
async fn a_release_that_crashes_keeps_its_last_words() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let tenant = installation.made_tenant("acme", 0).await;
    let spec = installation.running(&tenant, 1, &["sh", "-c", "echo last words; exit 4"]);
    let machine = provider.start_machine(&spec).await.expect("started").external_id;
    let ended = MachineState::Exited {
        exit_code: 4,
        out_of_memory: false,
    };
    for _ in 0..50 {
        if provider.machine_state(&machine).await.expect("state") == ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(provider.machine_state(&machine).await.expect("state"), ended);
    assert!(
        !provider
            .probe(&spec.tenant, &machine, (8080, "/"))
            .await
            .expect("probed")
    );
    let lines = provider.logs(&machine, &LogQuery::default()).await.expect("logs");
    let lines: Vec<_> = lines.map(|line| line.expect("line")).collect().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].line.as_str(), lines[0].stream),
        ("last words", "stdout")
    );
}

#[tokio::test]
async fn tenants_cannot_reach_each_other() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let mut machines = Vec::new();
    for (slot, label) in ["acme", "bolt"].into_iter().enumerate() {
        let tenant = installation
            .made_tenant(label, u32::try_from(slot).expect("small"))
            .await;
        let machine = installation.start(&installation.release(&tenant, 1)).await;
        provider
            .attach_traffic(&tenant, &machine)
            .await
            .expect("attached");
        provider
            .attach_traffic(&tenant, &machine)
            .await
            .expect("attached again");
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        machines.push((
            machine.clone(),
            docker(&["inspect", "--format", format, &machine]),
        ));
    }
    let reach = |from: &str, address: &str| {
        succeeds_in(
            from,
            &format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc {address} 8080 | grep -q v1"),
        )
    };
    for (from, _) in &machines {
        for (to, addresses) in &machines {
            let addresses: Vec<_> = addresses.split_whitespace().collect();
            assert_eq!(addresses.len(), 2, "private and edge network");
            for address in addresses {
                assert_eq!(reach(from, address), from == to, "{from} to {to} at {address}");
            }
        }
    }
}

/// Whoever calls may die at any moment: whatever was half done, the next call completes it.
#[tokio::test]
async fn half_done_work_is_completed() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let tenant = installation.tenant("acme", 0);
    let spec = installation.release(&tenant, 1);
    let mut millis = 10;
    loop {
        let work = async {
            provider.create_app(&tenant).await?;
            provider.create_volume(&tenant).await?;
            provider.start_machine(&spec).await
        };
        match tokio::time::timeout(Duration::from_millis(millis), work).await {
            Ok(made) => {
                made.expect("completed");
                break;
            }
            Err(_) => millis += millis / 2,
        }
    }
    let all = futures::future::join_all((0..4).map(|_| provider.start_machine(&spec))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let machine = installation.start(&spec).await;
    assert!(succeeds_in(&machine, "echo kept > /app/data/file"));
    assert_eq!(provider.list_machines(&tenant).await.expect("list").len(), 1);
    assert_eq!(
        installation.leftovers().len(),
        4,
        "{:?}",
        installation.leftovers()
    );
}

/// A machine does not come back into a network that was taken away under it, whether it runs or not.
#[tokio::test]
async fn a_machine_that_is_cut_off_is_made_anew() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    let tenant = installation.made_tenant("acme", 0).await;
    let spec = installation.release(&tenant, 1);
    let machine = installation.start(&spec).await;
    let network = provider.private_network(&tenant).expect("a network");
    let number = || docker(&["inspect", "--format", "{{.Id}}", &machine]);
    let first = number();
    assert_eq!(installation.start(&spec).await, machine);
    assert_eq!(number(), first, "one that is well stays");

    docker(&["network", "disconnect", "--force", &network, &machine]);
    docker(&["network", "rm", &network]);
    provider.create_app(&tenant).await.expect("networks");
    installation.start(&spec).await;
    let second = number();
    assert_ne!(second, first);

    docker(&["stop", "--time", "1", &machine]);
    docker(&["network", "rm", &network]);
    provider.create_app(&tenant).await.expect("networks");
    installation.start(&spec).await;
    assert_ne!(number(), second);
}

#[tokio::test]
async fn what_is_not_ours_is_not_touched() {
    need!(Installation::available());
    let installation = Installation::new();
    let provider = installation.provider();
    installation.made_tenant("acme", 0).await;
    let other = installation.tenant("acme", 1);
    let taken = provider
        .create_app(&other)
        .await
        .expect_err("another tenant's name");
    assert!(
        matches!(
            taken,
            ProviderError::Fatal {
                code: "name-taken",
                ..
            }
        ),
        "{taken:?}"
    );
    let overlapping = installation.tenant("bolt", 0);
    let taken = provider
        .create_app(&overlapping)
        .await
        .expect_err("another tenant's addresses");
    assert!(
        matches!(
            taken,
            ProviderError::Fatal {
                code: "address-in-use",
                ..
            }
        ),
        "{taken:?}"
    );
    let outside = installation.tenant("crow", 8);
    let full = provider.create_app(&outside).await.expect_err("no such slot");
    assert!(
        matches!(
            full,
            ProviderError::Fatal {
                code: "address-pool-full",
                ..
            }
        ),
        "{full:?}"
    );
}
