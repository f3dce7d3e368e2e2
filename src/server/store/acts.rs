//! The act that is under way: whoever serves a request or runs a command says here who does what, and the
//! first transaction that is committed under it carries its row of the audit. So no act can forget its record.

use std::sync::{Arc, Mutex, PoisonError};

use crate::api::audit::AuditResult;
use crate::api::id::{AccountId, TenantId};
use crate::api::time::Time;

tokio::task_local! {
    static UNDER_WAY: Arc<Mutex<State>>;
}

/// What is known of an act.
#[derive(Clone, Debug)]
pub struct Act {
    /// When it began.
    pub at: Time,
    /// Kind of what was shown.
    pub actor: String,
    /// Which one.
    pub credential_id: Option<String>,
    /// Whose it is.
    pub account_id: Option<AccountId>,
    /// As what.
    pub role: Option<String>,
    /// What is done.
    pub action: String,
    /// To which tenant.
    pub tenant_id: Option<TenantId>,
    /// To what in particular.
    pub target: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// How it ended.
    pub result: AuditResult,
    /// Why it was refused.
    pub code: Option<String>,
    /// The request.
    pub request_id: String,
}

impl Act {
    /// An act of nobody known yet.
    #[must_use]
    pub fn new(action: impl Into<String>, request_id: impl Into<String>, at: Time) -> Self {
        Self {
            at,
            actor: "nobody".to_owned(),
            credential_id: None,
            account_id: None,
            role: None,
            action: action.into(),
            tenant_id: None,
            target: None,
            address: None,
            result: AuditResult::Done,
            code: None,
            request_id: request_id.into(),
        }
    }
}

struct State {
    act: Act,
    /// Acts of nobody are left out: anybody could fill the table with them.
    wanted: bool,
    recorded: bool,
}

/// Does `work` as `act`; answers what is left to record: the act, where no transaction has carried it.
pub async fn perform<T>(act: Act, work: impl Future<Output = T>) -> (T, Option<Act>) {
    let state = Arc::new(Mutex::new(State {
        wanted: act.actor != "nobody",
        recorded: false,
        act,
    }));
    let done = UNDER_WAY.scope(Arc::clone(&state), work).await;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let left = (state.wanted && !state.recorded).then(|| state.act.clone());
    (done, left)
}

/// The same for work that is committed by itself: what no transaction has carried was not done.
pub async fn perform_whole<T>(act: Act, work: impl Future<Output = T>) -> T {
    perform(act, work).await.0
}

/// Says who acts, once that is known: what they showed, which one, and whose it is.
pub fn by(actor: &str, credential_id: Option<&str>, account: &AccountId) {
    change(|state| {
        actor.clone_into(&mut state.act.actor);
        state.act.credential_id = credential_id.map(str::to_owned);
        state.act.account_id = Some(account.clone());
        state.wanted = true;
    });
}

/// Says which tenant is acted on, and as what.
pub fn on_tenant(tenant: &TenantId, role: Option<&str>) {
    change(|state| {
        state.act.tenant_id = Some(tenant.clone());
        state.act.role = role.map(str::to_owned);
    });
}

/// Says what in particular is acted on; never anything secret.
pub fn about(target: &str) {
    change(|state| state.act.target = Some(target.to_owned()));
}

/// Says that the act ends in a refusal that changes something all the same.
pub fn refused(code: &str) {
    change(|state| {
        state.act.result = AuditResult::Refused;
        state.act.code = Some(code.to_owned());
    });
}

/// Has the act recorded though nobody is known to do it.
pub fn keep() {
    change(|state| state.wanted = true);
}

/// Says that nothing is done that is worth a record.
pub fn leave_out() {
    change(|state| state.wanted = false);
}

/// The act that the next commit must carry, if there is one.
pub(super) fn unrecorded() -> Option<Act> {
    UNDER_WAY
        .try_with(|state| {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.wanted && !state.recorded).then(|| state.act.clone())
        })
        .ok()
        .flatten()
}

/// A commit has carried it.
pub(super) fn recorded() {
    change(|state| state.recorded = true);
}

fn change(how: impl FnOnce(&mut State)) {
    // Outside of an act there is nothing to say: the engine's own work is told by events.
    let _ = UNDER_WAY.try_with(|state| how(&mut state.lock().unwrap_or_else(PoisonError::into_inner)));
}
