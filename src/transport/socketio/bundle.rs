//! The client bundle: the stock client's own files, for pages that load the client from their server (Socket.IO documentation,
//! "Standalone build"). They are the operator's files, read when the gateway starts.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::transport::http::{Access, Answer, Route};

/// The names under which files are served, those of the reference server.
const NAMES: [&str; 8] = [
    "socket.io.js",
    "socket.io.min.js",
    "socket.io.esm.min.js",
    "socket.io.msgpack.min.js",
    "socket.io.js.map",
    "socket.io.min.js.map",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js.map",
];

/// The bytes of a digest in an entity tag: enough to tell any two files apart.
const TAG_BYTES: usize = 16;

/// One file of the client bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFile {
    name: &'static str,
    bytes: Bytes,
}

impl BundleFile {
    /// The largest file, in bytes: ten times what there is.
    pub const BYTES_MAX: usize = 4 << 20;

    /// The name of the file that a bundle of one file is served as.
    pub const MAIN: &'static str = NAMES[0];

    /// A file under its name; `None` for a name that no client asks for.
    #[must_use]
    pub fn new(name: &str, bytes: impl Into<Bytes>) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let bytes = bytes.into();
        Some(Self { name, bytes })
    }

    /// Returns the names of all files that are served.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }

    /// The file's route beside the path of Socket.IO. Pages of listed origins may import it as a module; a plain script needs no
    /// such leave.
    pub(super) fn route(&self, path: &str) -> Route {
        let path = format!("{}/{}", path.trim_end_matches('/'), self.name);
        let whole = self.response();
        let answer = move |headers: &HeaderMap| {
            let tag = whole.headers().get(header::ETAG);
            if tag.is_some_and(|tag| is_known(headers, tag)) {
                not_modified(&whole)
            } else {
                whole.clone()
            }
        };
        Route::get(path, move |call| {
            std::future::ready(Answer::Response(answer(call.request.headers())))
        })
        .access(Access::Shared { headers: &[] })
    }

    fn response(&self) -> Response<Bytes> {
        let kind = if self.name.strip_suffix(".map").is_some() {
            "application/json; charset=utf-8"
        } else {
            "text/javascript; charset=utf-8"
        };
        let mut response = Response::new(self.bytes.clone());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::ETAG, tag(&self.bytes));
        // Kept, and asked for again each time: an operator replaces the file, and its name stays.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Pages that are isolated (COEP) load it from another origin only with this.
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
        response
    }
}

/// The strong entity tag of a file (RFC 9110 section 8.8.3).
fn tag(bytes: &[u8]) -> HeaderValue {
    use std::fmt::Write as _;
    let digest = digest(&SHA256, bytes);
    let digits = digest.as_ref()[..TAG_BYTES]
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    HeaderValue::try_from(format!("\"{digits}\"")).expect("digits and quotes are visible ASCII")
}

/// Reports whether the client has the file already: `If-None-Match`, by the weak comparison (RFC 9110 section 13.1.2).
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    tags.any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given).as_bytes() == tag.as_bytes()
    })
}

/// The answer without the file, with the headers that the file would have (RFC 9110 section 15.4.5).
fn not_modified(whole: &Response<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [header::ETAG, header::CACHE_CONTROL] {
        if let Some(value) = whole.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_client_are_taken() {
        for name in BundleFile::names() {
            assert!(BundleFile::new(name, "x").is_some(), "{name}");
        }
        for name in ["", "index.html", "../socket.io.js", "socket.io.js/", "Socket.io.js"] {
            assert_eq!(BundleFile::new(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn a_known_file_is_told_by_its_tag() {
        // printf x | sha256sum | head -c 32
        let own = tag(b"x");
        assert_eq!(own, "\"2d711642b726b04401627ca9fbac32f5\"");
        let known = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            is_known(&headers, &own)
        };
        let quoted = own.to_str().unwrap();
        assert!(known(&[quoted]) && known(&["*"]) && known(&[&format!("W/{quoted}")]));
        assert!(known(&[&format!("\"a\", {quoted}")]) && known(&["\"a\"", quoted]));
        assert!(!known(&[]) && !known(&["\"a\""]) && !known(&[quoted.trim_matches('"')]));
    }
}
