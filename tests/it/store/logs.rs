//! Lines that are kept: numbers without gaps, many small chunks packed into one, bounded in size and age.

use futures::FutureExt as _;
use systemprompt::api::id::TenantId;
use systemprompt::api::log::LogSource;
use systemprompt::api::time::Time;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::log_lines::KeptLine;
use systemprompt::server::store::log_positions::{self, PositionRow};
use systemprompt::server::store::{Store, duties, log_chunks};

use crate::store::Case;
use crate::store::cases::{NOW, tenant};

pub(crate) const ALL: &[Case] = &[
    ("lines are numbered and packed", |store| numbered(store).boxed()),
    ("lines are bounded in size", |store| bounded(store).boxed()),
    ("lines are bounded in age", |store| aged(store).boxed()),
    ("a position moves for one", |store| positions(store).boxed()),
    ("a duty is one server's", |store| one_holder(store).boxed()),
];

fn line(number: usize, text: &str) -> KeptLine {
    KeptLine {
        at: NOW.plus_seconds(i64::try_from(number).expect("small")),
        is_error: number.is_multiple_of(3),
        release: 1,
        text: text.to_owned(),
    }
}

async fn keep(store: &Store, tenant: &TenantId, lines: &[KeptLine], now: Time) {
    let mut tx = store.begin().await.expect("begun");
    log_chunks::append(&mut tx, (tenant, LogSource::App), lines, now)
        .await
        .expect("kept");
    tx.commit().await.expect("committed");
}

/// Every line that is there, with its number.
async fn all(store: &Store, tenant: &TenantId) -> Vec<(u64, String)> {
    let mut tx = store.begin_read().await.expect("begun");
    let chunks = log_chunks::list_after(&mut tx, (tenant, LogSource::App), (0, None), 10_000)
        .await
        .expect("read");
    let mut all = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk.last_seq - chunk.first_seq + 1, chunk.lines.len() as u64);
        all.extend((chunk.first_seq..).zip(chunk.lines.into_iter().map(|line| line.text)));
    }
    all
}

async fn chunks(store: &Store) -> usize {
    let mut tx = store.begin_read().await.expect("begun");
    let rows = tx.fetch_all("SELECT 1 AS one FROM log_chunks", vec![]).await;
    rows.expect("rows").len()
}

async fn numbered(store: Store) {
    let acme = tenant(&store, &Clock::system(), "acme").await.id;
    let bolt = tenant(&store, &Clock::system(), "bolt").await.id;
    let mut wanted = Vec::new();
    for number in 1..=200_usize {
        // Some chunks are large enough to be packed as they come, between loose ones.
        let text = if number == 70 {
            "x".repeat(40_000)
        } else {
            format!("line {number}\u{e9}")
        };
        keep(&store, &acme, &[line(number, &text)], NOW).await;
        wanted.push((number as u64, text));
    }
    keep(&store, &bolt, &[line(1, "of another tenant")], NOW).await;
    assert_eq!(all(&store, &acme).await, wanted);
    let rows = chunks(&store).await;
    assert!(rows < 20, "{rows} rows for 201 writes");
    let mut tx = store.begin_read().await.expect("begun");
    let key = (&acme, LogSource::App);
    assert_eq!(
        log_chunks::last_seq(&mut tx, &acme, LogSource::App)
            .await
            .expect("read"),
        200
    );
    assert_eq!(
        log_chunks::last_seq(&mut tx, &acme, LogSource::Edge)
            .await
            .expect("read"),
        0
    );
    let last = log_chunks::list_before(&mut tx, key, u64::MAX, 1)
        .await
        .expect("read");
    assert_eq!(last[0].last_seq, 200);
    let since = NOW.plus_seconds(199);
    let late = log_chunks::list_after(&mut tx, key, (0, Some(since)), 100)
        .await
        .expect("read");
    assert_eq!(late.last().map(|chunk| chunk.last_seq), Some(200));
    assert!(
        late.len() <= 8,
        "chunks without late lines are not read: {}",
        late.len()
    );
}

async fn bounded(store: Store) {
    let acme = tenant(&store, &Clock::system(), "acme").await.id;
    let text = "y".repeat(1_000_000);
    for number in 1..=40 {
        keep(&store, &acme, &[line(number, &text)], NOW).await;
    }
    let left = all(&store, &acme).await;
    assert_eq!(left.last().map(|(seq, _)| *seq), Some(40));
    let bytes: usize = left.iter().map(|(_, text)| text.len()).sum();
    assert!(
        (28_000_000..=30_000_000).contains(&bytes),
        "{bytes} bytes are kept"
    );
    let mut tx = store.begin().await.expect("begun");
    log_chunks::remove_all(&mut tx, &acme).await.expect("removed");
    tx.commit().await.expect("committed");
    assert_eq!(all(&store, &acme).await, []);
}

async fn aged(store: Store) {
    let acme = tenant(&store, &Clock::system(), "acme").await.id;
    for (number, day) in [(1, 0), (2, 1), (3, 8)] {
        keep(
            &store,
            &acme,
            &[line(number, "z")],
            NOW.plus_seconds(day * 86_400),
        )
        .await;
    }
    let mut tx = store.begin().await.expect("begun");
    let cutoff = NOW.plus_seconds(8 * 86_400 - log_chunks::KEPT_SECONDS + 1);
    assert_eq!(
        log_chunks::delete_before(&mut tx, cutoff).await.expect("swept"),
        2
    );
    tx.commit().await.expect("committed");
    assert_eq!(all(&store, &acme).await, [(3, "z".to_owned())]);
    keep(&store, &acme, &[line(4, "z")], NOW).await;
    assert_eq!(all(&store, &acme).await.last().map(|(seq, _)| *seq), Some(4));
}

async fn positions(store: Store) {
    let acme = tenant(&store, &Clock::system(), "acme").await.id;
    let nobody = TenantId::new(Clock::system().uuid());
    let mut tx = store.begin().await.expect("begun");
    let mut advance = async |machine: &str, tenant: &TenantId, revision, position: &str| {
        let row = PositionRow {
            position: position.to_owned(),
            revision,
        };
        log_positions::advance(&mut tx, (machine, Some(tenant)), &row, NOW)
            .await
            .expect("written")
    };
    assert!(advance("m1", &acme, 0, "1").await);
    assert!(!advance("m1", &acme, 0, "1").await, "somebody was first");
    assert!(advance("m1", &acme, 1, "2").await);
    assert!(!advance("m1", &acme, 1, "3").await, "somebody was faster");
    assert!(!advance("m2", &nobody, 0, "1").await, "there is no such tenant");
    let found = log_positions::find::<i64>(&mut tx, "m1").await.expect("read");
    assert_eq!(
        found,
        Some(PositionRow {
            position: 2,
            revision: 2
        })
    );
    let still = log_positions::list_still(&mut tx, NOW).await.expect("read");
    assert_eq!(still, Vec::<String>::new());
    let still = log_positions::list_still(&mut tx, NOW.plus_seconds(1))
        .await
        .expect("read");
    assert_eq!(still, ["m1"]);
    log_positions::remove_all(&mut tx, &acme).await.expect("removed");
    assert_eq!(
        log_positions::find::<i64>(&mut tx, "m1").await.expect("read"),
        None
    );
    tx.commit().await.expect("committed");
}

async fn one_holder(store: Store) {
    let mut tx = store.begin().await.expect("begun");
    let mut hold = async |holder: &str, seconds| {
        let now = NOW.plus_seconds(seconds);
        duties::hold(&mut tx, "observe", holder, (now, now.plus_seconds(10)))
            .await
            .expect("asked")
    };
    assert!(hold("a", 0).await);
    assert!(!hold("b", 5).await);
    assert!(hold("a", 9).await, "kept");
    assert!(!hold("b", 15).await);
    assert!(hold("b", 20).await, "not heard of");
    assert!(!hold("a", 21).await);
    duties::give_back(&mut tx, "observe", "b")
        .await
        .expect("given back");
    let now = NOW.plus_seconds(22);
    assert!(
        duties::hold(&mut tx, "observe", "a", (now, now))
            .await
            .expect("asked")
    );
    tx.commit().await.expect("committed");
}
