//! Brings blobs and a manifest to the registry (OCI distribution specification, "Push").

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method};
use reqwest::{Body, Response, Url};

use crate::image::push::registry::stored::digest;
use crate::image::push::registry::{Registry, again};
use crate::image::push::{Failure, digest_of};

/// A layer may be gigabytes over a slow line; a connection that says nothing breaks by itself.
const LAYER: Duration = Duration::from_secs(4 * 3600);

/// Bytes on their way into a blob whose digest is known only when all have gone.
pub(in crate::image::push) struct Upload(Url);

impl Registry<'_> {
    /// Begins a blob.
    pub(in crate::image::push) async fn begin(&self) -> Result<Upload, Failure> {
        let begin = self.ask(Method::POST, "blobs/uploads/")?;
        let answer = begin.header(CONTENT_LENGTH, 0).send().await.map_err(again)?;
        self.upload(&self.accepted(answer).await?)
    }

    /// Sends what the blob is made of.
    pub(in crate::image::push) async fn fill(&self, upload: Upload, body: Body) -> Result<Upload, Failure> {
        let fill = self.ask_at(Method::PATCH, upload.0).timeout(LAYER);
        let fill = fill.header(CONTENT_TYPE, "application/octet-stream").body(body);
        let answer = fill.send().await.map_err(again)?;
        self.upload(&self.accepted(answer).await?)
    }

    /// Ends the blob: the registry has the same bytes, or refuses.
    pub(in crate::image::push) async fn end(&self, upload: Upload, digest: &str) -> Result<(), Failure> {
        let mut url = upload.0;
        url.query_pairs_mut().append_pair("digest", digest);
        let end = self
            .ask_at(Method::PUT, url)
            .header(CONTENT_LENGTH, 0)
            .timeout(LAYER);
        self.accepted(end.send().await.map_err(again)?).await?;
        Ok(())
    }

    /// Brings a small blob at once, and says its digest.
    pub(in crate::image::push) async fn put(&self, bytes: Bytes) -> Result<String, Failure> {
        let digest = digest_of(&bytes);
        let upload = self.begin().await?;
        let upload = self.fill(upload, Body::from(bytes)).await?;
        self.end(upload, &digest).await?;
        Ok(digest)
    }

    /// Lets the tag point at this manifest; the digest is the registry's own word.
    pub(in crate::image::push) async fn point(
        &self,
        kind: &'static str,
        manifest: Bytes,
    ) -> Result<String, Failure> {
        let put = self.ask(Method::PUT, &format!("manifests/{}", self.request().tag))?;
        let put = put
            .header(CONTENT_TYPE, HeaderValue::from_static(kind))
            .body(manifest);
        digest(&self.accepted(put.send().await.map_err(again)?).await?)
    }

    /// Where the next part of an upload goes: at the registry itself, nowhere else.
    fn upload(&self, answer: &Response) -> Result<Upload, Failure> {
        let place = answer
            .headers()
            .get(LOCATION)
            .and_then(|place| place.to_str().ok());
        let place = place.and_then(|place| self.base.join(place).ok());
        let is_here = |url: &Url| url.host() == self.base.host() && url.scheme() == self.base.scheme();
        place
            .filter(is_here)
            .map(Upload)
            .ok_or_else(|| Failure::Again("the registry does not say where an upload goes on".to_owned()))
    }
}
