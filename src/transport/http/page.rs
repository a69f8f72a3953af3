//! The page of `roomcast dev`: one file that runs its own script and talks to this port, and nothing else.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::route::{Answer, Route};

/// The route of the page.
pub(super) fn route(html: &'static str) -> Route {
    Route::get("/", move |_| std::future::ready(Answer::Response(answer(html))))
}

/// The page, under a policy that names its own script and style by their digests (CSP level 3).
fn answer(html: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(html.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, policy(html));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn policy(html: &str) -> HeaderValue {
    let script = source(html, "<script>", "</script>");
    let style = source(html, "<style>", "</style>");
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("base64 and the words around it are visible ASCII")
}

/// The digest of what stands between the tags; `'none'` where there is nothing.
fn source(html: &str, open: &str, close: &str) -> String {
    let inner = html.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    inner.map_or_else(
        || "'none'".to_owned(),
        |(inner, _)| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, inner.as_bytes()))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_script_and_style_of_the_page_may_run() {
        let response = answer("<style></style><script>alert(1)</script>");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
        assert!(policy.contains("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"));
        assert!(policy.contains("style-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"));
        assert!(!policy.contains("unsafe"));
    }
}
