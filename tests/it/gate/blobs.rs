//! Blobs: every way to push one, ranges, digests that do not match.

use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, RANGE};

use crate::gate::conformance::{Run, expect};
use crate::gate::harness::{Answer, Client, pattern, sha256, sha512};

/// A hash function by which blobs are named.
pub(crate) struct Algorithm {
    name: &'static str,
    digest: fn(&[u8]) -> String,
}

/// All that the gate must know.
pub(crate) const ALGORITHMS: [Algorithm; 2] = [
    Algorithm {
        name: "sha256",
        digest: sha256,
    },
    Algorithm {
        name: "sha512",
        digest: sha512,
    },
];

/// A way to push a blob.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    PostOnly,
    PostPut,
    Chunked {
        chunks: usize,
        put_last: bool,
        out_of_order: bool,
    },
    Stream,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::PostOnly => "blob-post-only",
            Self::PostPut => "blob-post-put",
            Self::Chunked { .. } => "blob-patch-chunked",
            Self::Stream => "blob-patch-stream",
        }
    }

    async fn push(self, client: &Client, digest: &str, bytes: &[u8]) -> Result<Answer, String> {
        match self {
            Self::PostOnly => {
                let request = client.call(Method::POST, &format!("blobs/uploads/?digest={digest}"));
                Ok(client.send(request.body(bytes.to_vec())).await)
            }
            Self::PostPut => {
                let location = client.begin().await;
                Ok(client.finish(&location, digest, bytes).await)
            }
            Self::Stream => {
                let location = client.begin().await;
                let answer = client.patch(&location, None, bytes).await;
                expect("status of the PATCH", answer.status, 202, &answer)?;
                Ok(client.finish(&answer.header("location"), digest, &[]).await)
            }
            Self::Chunked { .. } => self.push_chunks(client, digest, bytes).await,
        }
    }

    async fn push_chunks(self, client: &Client, digest: &str, bytes: &[u8]) -> Result<Answer, String> {
        let Self::Chunked {
            chunks,
            put_last,
            out_of_order,
        } = self
        else {
            return Err("not chunked".into());
        };
        let mut location = client.begin().await;
        let size = bytes.len().div_ceil(chunks);
        let mut first = 0;
        while first < bytes.len() {
            let end = (first + size).min(bytes.len());
            if out_of_order {
                location = refuse_out_of_order(client, &location, bytes, (first, size, put_last)).await?;
            }
            if put_last && end == bytes.len() {
                return Ok(put_chunk(
                    client,
                    &format!("{location}?digest={digest}"),
                    first,
                    &bytes[first..],
                )
                .await);
            }
            let answer = client.patch(&location, Some(first), &bytes[first..end]).await;
            expect("status of a chunk", answer.status, 202, &answer)?;
            expect("range", answer.header("range"), format!("0-{}", end - 1), &answer)?;
            location = answer.header("location");
            first = end;
        }
        Ok(client.finish(&location, digest, &[]).await)
    }
}

async fn put_chunk(client: &Client, path: &str, first: usize, bytes: &[u8]) -> Answer {
    let range = format!("{first}-{}", first + bytes.len() - 1);
    let request = client.call(Method::PUT, path).header(CONTENT_RANGE, range);
    client.send(request.body(bytes.to_vec())).await
}

/// Sends the chunk after the next one, or the first one again; answers where to go on.
async fn refuse_out_of_order(
    client: &Client,
    location: &str,
    bytes: &[u8],
    (first, size, put_last): (usize, usize, bool),
) -> Result<String, String> {
    let wrong = if first + size < bytes.len() {
        first + size
    } else {
        0
    };
    let end = (wrong + size).min(bytes.len());
    let answer = match put_last && end == bytes.len() {
        true => {
            put_chunk(
                client,
                &format!("{location}?digest={}", sha256(bytes)),
                wrong,
                &bytes[wrong..],
            )
            .await
        }
        false => client.patch(location, Some(wrong), &bytes[wrong..end]).await,
    };
    expect("status of a chunk out of order", answer.status, 416, &answer)?;
    let status = client.get(location).await;
    expect("status of the upload", status.status, 204, &status)?;
    expect(
        "range",
        status.header("range"),
        format!("0-{}", first.saturating_sub(1)),
        &status,
    )?;
    Ok(status.header("location"))
}

fn created(answer: &Answer, digest: &str) -> Result<(), String> {
    expect("status", answer.status, 201, answer)?;
    expect(
        "digest",
        answer.header("docker-content-digest"),
        digest.to_owned(),
        answer,
    )?;
    expect(
        "location",
        answer.header("location"),
        format!("/v2/systemprompt-images/blobs/{digest}"),
        answer,
    )
}

/// Pushes a blob and notes it.
pub(crate) async fn push(run: &mut Run, case: &str, digest: &str, bytes: &[u8]) {
    let result = Way::PostPut.push(&run.client, digest, bytes).await;
    run.note(
        &format!("{case}/blob-post-put"),
        result.and_then(|answer| created(&answer, digest)),
    );
}

/// Reads a blob in both ways and notes it.
pub(crate) async fn read(run: &mut Run, head: &str, get: &str, (digest, bytes): (&str, &[u8])) {
    let path = format!("blobs/{digest}");
    let answer = run.client.head(&path).await;
    let length = bytes.len().to_string();
    let result = expect("status", answer.status, 200, &answer)
        .and(expect(
            "length",
            answer.header("content-length"),
            length.clone(),
            &answer,
        ))
        .and(expect(
            "digest",
            answer.header("docker-content-digest"),
            digest.to_owned(),
            &answer,
        ));
    run.note(&format!("{head}/blob-head"), result);
    let answer = run.client.get(&path).await;
    let result = expect("status", answer.status, 200, &answer)
        .and(expect("length", answer.header("content-length"), length, &answer))
        .and(expect(
            "digest",
            answer.header("docker-content-digest"),
            digest.to_owned(),
            &answer,
        ))
        .and(expect(
            "sameness of the bytes",
            answer.body == bytes,
            true,
            &answer,
        ));
    run.note(&format!("{get}/blob-get"), result);
}

/// Removes a blob and notes it; `status` is what must come.
pub(crate) async fn remove(run: &mut Run, case: &str, digest: &str, status: u16) {
    let answer = run.client.delete(&format!("blobs/{digest}")).await;
    let result = expect("status", answer.status, status, &answer);
    let answer = run.client.head(&format!("blobs/{digest}")).await;
    let gone = expect("status after the removal", answer.status, 404, &answer);
    run.note(&format!("{case}/blob-delete"), result.and(gone));
}

/// All cases with blobs that `algorithm` names.
pub(crate) async fn all(run: &mut Run, algorithm: &Algorithm) {
    let group = format!("{} blobs", algorithm.name);
    let missing = run
        .client
        .get(&format!("blobs/{}", (algorithm.digest)(b"never pushed")))
        .await;
    run.note(
        &format!("{group}/get-missing"),
        expect("status", missing.status, 404, &missing),
    );
    let chunked = |chunks, put_last, out_of_order| Way::Chunked {
        chunks,
        put_last,
        out_of_order,
    };
    let ways = [
        ("post only", Way::PostOnly),
        ("post+put", Way::PostPut),
        ("stream", Way::Stream),
        ("chunked single", chunked(1, false, false)),
        ("chunked multi", chunked(3, false, false)),
        ("chunked multi and put chunk", chunked(3, true, false)),
        ("chunked out-of-order", chunked(3, false, true)),
        ("chunked out-of-order and put chunk", chunked(3, true, true)),
    ];
    for (seed, (name, way)) in ways.into_iter().enumerate() {
        let case = format!("{group}/{name}");
        // Larger than two of the pieces that the gate works with.
        let bytes = pattern(seed as u64, 700_001);
        let digest = (algorithm.digest)(&bytes);
        let result = way.push(&run.client, &digest, &bytes).await;
        run.note(
            &format!("{case}/{}", way.name()),
            result.and_then(|answer| created(&answer, &digest)),
        );
        read(run, &case, &case, (&digest, &bytes)).await;
        remove(run, &case, &digest, 202).await;
    }
    for (name, bytes) in [("empty", b"".as_slice()), ("emptyJSON", b"{}")] {
        let case = format!("{group}/{name}");
        let digest = (algorithm.digest)(bytes);
        push(run, &case, &digest, bytes).await;
        read(run, &case, &case, (&digest, bytes)).await;
        remove(run, &case, &digest, 202).await;
    }
    bad_digests(run, &group, algorithm).await;
    mounts(run, &group, algorithm).await;
    cancel(run, &group, algorithm).await;
    ranges(run, &group, algorithm).await;
}

async fn bad_digests(run: &mut Run, group: &str, algorithm: &Algorithm) {
    let ways = [
        ("bad digest post only", Way::PostOnly),
        ("bad digest post+put", Way::PostPut),
        ("bad digest stream", Way::Stream),
        (
            "bad digest chunked",
            Way::Chunked {
                chunks: 3,
                put_last: false,
                out_of_order: false,
            },
        ),
        (
            "bad digest chunked and put chunk",
            Way::Chunked {
                chunks: 3,
                put_last: true,
                out_of_order: false,
            },
        ),
    ];
    let bytes = pattern(77, 5000);
    let digest = (algorithm.digest)(b"something else");
    for (name, way) in ways {
        let result = way.push(&run.client, &digest, &bytes).await;
        let result = result.and_then(|answer| {
            expect(
                "problem",
                answer.problem(),
                (400, "DIGEST_INVALID".to_owned()),
                &answer,
            )
        });
        let answer = run.client.head(&format!("blobs/{digest}")).await;
        let absent = expect("status of the blob", answer.status, 404, &answer);
        run.note(&format!("{group}/{name}/{}", way.name()), result.and(absent));
    }
}

async fn mounts(run: &mut Run, group: &str, algorithm: &Algorithm) {
    let bytes = pattern(88, 3000);
    let digest = (algorithm.digest)(&bytes);
    let own = format!("blobs/uploads/?mount={digest}&from=systemprompt-images");
    let anonymous = format!("blobs/uploads/?mount={digest}");
    for (name, step, path, pushed) in [
        ("mount", "blob-mount", &own, true),
        ("mount anonymous", "blob-mount-anonymous", &anonymous, true),
        ("mount missing", "blob-mount", &own, false),
    ] {
        let case = format!("{group}/{name}");
        if pushed {
            push(run, &case, &digest, &bytes).await;
        }
        let answer = run.client.ask(Method::POST, path).await;
        let mounted = name == "mount";
        let result = match mounted {
            true => created(&answer, &digest),
            false => {
                let done = run
                    .client
                    .finish(&answer.header("location"), &digest, &bytes)
                    .await;
                expect("status", answer.status, 202, &answer).and(created(&done, &digest))
            }
        };
        run.note(&format!("{case}/{step}"), result);
        read(run, &case, &case, (&digest, &bytes)).await;
        remove(run, &case, &digest, 202).await;
    }
}

async fn cancel(run: &mut Run, group: &str, algorithm: &Algorithm) {
    let case = format!("{group}/post cancel");
    let location = run.client.begin().await;
    run.client.patch(&location, None, b"some bytes").await;
    let answer = run.client.delete(&location).await;
    let cancelled = expect("status", answer.status, 204, &answer);
    let answer = run.client.get(&location).await;
    let unknown = expect(
        "problem",
        answer.problem(),
        (404, "BLOB_UPLOAD_UNKNOWN".to_owned()),
        &answer,
    );
    run.note(&format!("{case}/blob-post-cancel"), cancelled.and(unknown));
    remove(run, &case, &(algorithm.digest)(b"some bytes"), 404).await;
}

async fn ranges(run: &mut Run, group: &str, algorithm: &Algorithm) {
    let case = format!("{group}/range requests");
    let bytes = pattern(99, 2048);
    let digest = (algorithm.digest)(&bytes);
    push(run, &case, &digest, &bytes).await;
    let cases = [
        ("500-1499", Some(500..1500)),
        ("500-", Some(500..2048)),
        ("-500", Some(1548..2048)),
        ("2000-5000", Some(2000..2048)),
        ("500-0", None),
        ("5000-10000", None),
    ];
    for (range, expected) in cases {
        let request = run.client.call(Method::GET, &format!("blobs/{digest}"));
        let answer = run
            .client
            .send(request.header(RANGE, format!("bytes={range}")))
            .await;
        let found = answer.header("content-range");
        let result = match expected {
            Some(part) => expect("status", answer.status, 206, &answer)
                .and(expect(
                    "range",
                    found,
                    format!("bytes {}-{}/2048", part.start, part.end - 1),
                    &answer,
                ))
                .and(expect(
                    "sameness of the bytes",
                    answer.body == bytes[part],
                    true,
                    &answer,
                )),
            None => expect("status", answer.status, 416, &answer).and(expect(
                "range",
                found,
                "bytes */2048".to_owned(),
                &answer,
            )),
        };
        run.note(&format!("{case}/range {range}"), result);
    }
    remove(run, &case, &digest, 202).await;
}
