//! The decision what comes next, in every state that can be reached.

use std::collections::HashSet;

use super::{Ending, KINDS, Next, Rule, Standing, next, saga_of};
use crate::server::store::operation_steps::StepStatus::{
    self, Done, Failed, Running, UndoFailed, Undoing, Undone, Waiting,
};

type State = (Vec<StepStatus>, bool, bool);

/// Whether something of the step may be there.
fn left(status: StepStatus) -> bool {
    matches!(status, Running | Done | Failed | Undoing | UndoFailed)
}

/// Each after all those before it; or the second, third and fourth side by side; or two chains.
fn graphs() -> [Vec<Vec<usize>>; 3] {
    [
        vec![vec![], vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3]],
        vec![vec![], vec![0], vec![0], vec![0], vec![0, 1, 2, 3]],
        vec![vec![], vec![], vec![0], vec![1], vec![2]],
    ]
}

fn rules(undo: &[bool], needs: &[Vec<usize>]) -> Vec<Rule> {
    let rule = |(undo, needs): (&bool, &Vec<usize>)| Rule {
        undo: *undo,
        needs: needs.clone(),
    };
    undo.iter().zip(needs).map(rule).collect()
}

fn decide(rules: &[Rule], pivot: usize, (log, undoing, failed): &State) -> Next {
    let standing = Standing {
        log,
        undoing: *undoing,
        failed: *failed,
    };
    next(rules, pivot, standing)
}

fn check(rules: &[Rule], pivot: usize, state: &State, what: &Next) {
    let log = &state.0;
    let undoable = |from: usize| {
        (from..log.len())
            .filter(|at| rules[*at].undo && left(log[*at]))
            .count()
    };
    let needed = |at: usize| rules[at].needs.iter();
    match what {
        Next::Run(ready) => {
            assert!(!ready.is_empty() && !state.1, "{state:?}");
            for at in 0..log.len() {
                let is_open = matches!(log[at], Waiting | Running);
                let may = is_open && needed(at).all(|needed| log[*needed] == Done);
                assert_eq!(ready.contains(&at), may, "{at} of {state:?}");
            }
        }
        Next::Undo(at) => {
            assert!(rules[*at].undo && log[*at] != UndoFailed, "{state:?}");
            assert_eq!(undoable(at + 1), 0, "the last one first: {state:?}");
            let past = log.iter().skip(pivot).any(|status| *status == Failed);
            assert!(!past || state.1, "no way back after the pivot: {state:?}");
        }
        Next::Finish(Ending::Succeeded) => assert!(log.iter().all(|status| *status == Done)),
        Next::Finish(ending @ (Ending::Failed | Ending::Undone)) => {
            assert_eq!(undoable(0), 0, "nothing is left: {state:?}");
            assert_eq!(*ending == Ending::Failed, state.2, "{state:?}");
        }
        Next::Finish(Ending::Stuck) => {
            let past = log.iter().skip(pivot).any(|status| *status == Failed);
            assert!(past || log.contains(&UndoFailed), "{state:?}");
        }
        Next::Finish(Ending::Abandoned) => panic!("only people abandon: {state:?}"),
    }
}

/// Everything that can follow: a step is done, fails for good, or its worker dies in the middle.
fn follow(pivot: usize, (log, undoing, failed): &State, what: &Next) -> Vec<State> {
    let with = |at: usize, status| {
        let mut log = log.clone();
        log[at] = status;
        log
    };
    match what {
        Next::Finish(_) => Vec::new(),
        Next::Run(ready) => ready
            .iter()
            .flat_map(|at| {
                [
                    (with(*at, Done), *undoing, *failed),
                    (with(*at, Running), *undoing, *failed),
                    (with(*at, Failed), *at < pivot, true),
                ]
            })
            .collect(),
        Next::Undo(at) => vec![
            (with(*at, Undone), true, *failed),
            (with(*at, Undoing), true, *failed),
            (with(*at, UndoFailed), true, *failed),
        ],
    }
}

/// What others beside the one that failed come to before anything is taken back.
fn come_to_rest((log, undoing, failed): &State) -> Vec<State> {
    if !undoing
        || log
            .iter()
            .any(|status| matches!(status, Undoing | Undone | UndoFailed))
    {
        return Vec::new();
    }
    let running = log.iter().enumerate().filter(|(_, status)| **status == Running);
    running
        .flat_map(|(at, _)| {
            [Done, Failed].map(|status| {
                let mut log = log.clone();
                log[at] = status;
                (log, *undoing, *failed)
            })
        })
        .collect()
}

#[test]
fn every_reachable_log_of_five_steps_is_decided_rightly() {
    let mut seen_endings = HashSet::new();
    for (graph, mask) in graphs()
        .iter()
        .flat_map(|graph| (0..32_u32).map(move |mask| (graph, mask)))
    {
        let undo: Vec<bool> = (0..5).map(|at| mask & (1 << at) != 0).collect();
        let rules = rules(&undo, graph);
        for pivot in 0..=5 {
            let mut open: Vec<State> = vec![(vec![Waiting; 5], false, false)];
            let mut seen: HashSet<State> = HashSet::new();
            while let Some(state) = open.pop() {
                if !seen.insert(state.clone()) {
                    continue;
                }
                let what = decide(&rules, pivot, &state);
                check(&rules, pivot, &state, &what);
                if let Next::Finish(ending) = what {
                    seen_endings.insert(format!("{ending:?}"));
                }
                open.extend(follow(pivot, &state, &what));
                open.extend(come_to_rest(&state));
                // Somebody may wish it to be taken back at any time before the pivot.
                if !state.1 && !state.2 {
                    open.push((state.0.clone(), true, false));
                }
            }
        }
    }
    assert_eq!(seen_endings.len(), 4, "{seen_endings:?}");
}

#[test]
fn every_way_ends() {
    for (graph, fail_at) in graphs()
        .iter()
        .flat_map(|graph| (0..=5).map(move |at| (graph, at)))
    {
        for pivot in 0..=5 {
            let rules = rules(&[true; 5], graph);
            let mut state = (vec![Waiting; 5], false, false);
            let mut turns = 0;
            loop {
                let what = decide(&rules, pivot, &state);
                let fails = matches!(&what, Next::Run(ready) if ready.first() == Some(&fail_at));
                let Some(first) = follow(pivot, &state, &what)
                    .into_iter()
                    .nth(if fails { 2 } else { 0 })
                else {
                    break;
                };
                state = first;
                turns += 1;
                assert!(turns <= 10, "pivot {pivot}, failure at {fail_at}: {state:?}");
            }
        }
    }
}

#[test]
fn what_a_step_needs_comes_before_it() {
    for kind in KINDS {
        let saga = saga_of(kind).expect("a saga of every kind");
        for (at, step) in saga.steps().iter().enumerate() {
            for needed in step.needs.unwrap_or_default() {
                let found = saga.steps().iter().position(|other| other.name == *needed);
                assert!(
                    found.is_some_and(|found| found < at),
                    "{kind}/{}: {needed}",
                    step.name
                );
            }
            // Where nothing is taken back any more, one step at a time is the one to look at.
            assert!(step.needs.is_none() || at < saga.pivot(), "{kind}/{}", step.name);
        }
    }
}

#[test]
fn stored_names_are_permanent() {
    let mut lines = Vec::new();
    for kind in KINDS {
        let saga = saga_of(kind).expect("a saga of every kind");
        let names: Vec<&str> = saga.steps().iter().map(|step| step.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{kind}");
        lines.push(format!("{kind}: {}", names.join(" ")));
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    create-tenant: start generate-secrets create-network create-volume tell-edge open-edge make-database join-database store-secrets add-certificate
    deploy: start verify-image create-release pull release-command start-machine wait-ready switch-traffic drain-old
    rollback: start verify-image create-release pull start-machine wait-ready switch-traffic drain-old
    restart: start create-release pull start-machine wait-ready switch-traffic drain-old
    apply-secrets: start create-release pull start-machine wait-ready switch-traffic drain-old
    change-memory: start create-release pull start-machine wait-ready switch-traffic drain-old
    delete-tenant: start stop-machines detach-edge drop-database remove-volume remove-app remove-images destroy-secrets verify-absent
    suspend: stop-machines refuse-connections
    activate: allow-connections pull start-machine wait-ready switch-traffic
    rotate-credentials: start generate-password create-login create-release pull start-machine wait-ready switch-traffic drain-old lock-old-login drop-old-login store-secrets
    repair: stop-cut-off restore-networks restore-route pull start-machine wait-ready switch-traffic remove-surplus
    set-sessions: tell-edge
    rotate-jwt-secret: start generate-secret create-release pull start-machine wait-ready switch-traffic drain-old store-secrets
    end-jwt-overlap: start create-release pull start-machine wait-ready switch-traffic drain-old
    ");
}
