//! Members of a tenant, and doors for support.

use reqwest::Method;

use crate::api::id::{AccountId, SupportGrantId, TenantId};
use crate::api::member::{AddMember, Member, OpenSupport, SupportGrant, UpdateMember};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// Who may do what to a tenant.
    pub async fn list_members(&self, id: &TenantId) -> Result<Vec<Member>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/members")).await
    }

    /// Lets an account do something to a tenant.
    pub async fn add_member(&self, id: &TenantId, new: &AddMember) -> Result<Member, ClientError> {
        let path = format!("/api/v1/tenants/{id}/members");
        self.call(Call::change(Method::POST, &path).json(new)?).await
    }

    /// Gives a member another role.
    pub async fn update_member(
        &self,
        id: &TenantId,
        account: &AccountId,
        wanted: &UpdateMember,
    ) -> Result<Member, ClientError> {
        let path = format!("/api/v1/tenants/{id}/members/{account}");
        self.call(Call::change(Method::PATCH, &path).json(wanted)?).await
    }

    /// Takes a member away.
    pub async fn remove_member(&self, id: &TenantId, account: &AccountId) -> Result<(), ClientError> {
        let path = format!("/api/v1/tenants/{id}/members/{account}");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::DELETE, &path))
            .await
            .map(drop)
    }

    /// Every door that was opened for support, newest first.
    pub async fn list_support(&self, id: &TenantId) -> Result<Vec<SupportGrant>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/support-grants"))
            .await
    }

    /// Lets the server's operators in.
    pub async fn open_support(
        &self,
        id: &TenantId,
        wanted: &OpenSupport,
    ) -> Result<SupportGrant, ClientError> {
        let path = format!("/api/v1/tenants/{id}/support-grants");
        self.call(Call::change(Method::POST, &path).json(wanted)?).await
    }

    /// Closes a door before it closes by itself.
    pub async fn close_support(&self, id: &TenantId, grant: &SupportGrantId) -> Result<(), ClientError> {
        let path = format!("/api/v1/tenants/{id}/support-grants/{grant}");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::DELETE, &path))
            .await
            .map(drop)
    }
}
