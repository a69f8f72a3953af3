//! Keys of a set that are not used, and what is logged of them.

use std::io;

use super::*;

#[test]
fn a_key_that_is_left_out_has_a_reason() {
    let changed = |mut key: Value, field: &str, value: Value| {
        key[field] = value;
        key
    };
    let (rsa_key, ec_key) = (jwk_of(&rsa(RSA), Named::RS256, "k"), jwk_of(&p256(), Named::ES256, "k"));
    let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
    for (key, why, is_usual) in [
        (json!("no key"), "not a JSON Web Key", false),
        (json!({"kty": "RSA"}), "no `kid`", false),
        (changed(rsa_key.clone(), "n", json!(short)), "2,048", false),
        (changed(rsa_key.clone(), "n", json!("%")), "`n` is not base64", false),
        (changed(rsa_key.clone(), "e", json!("AA")), "exponent", false),
        (changed(rsa_key.clone(), "use", json!("enc")), "`use`", true),
        (
            changed(rsa_key.clone(), "key_ops", json!(["encrypt"])),
            "`key_ops`",
            true,
        ),
        (changed(rsa_key, "alg", json!("PS256")), "`alg`", true),
        (changed(ec_key.clone(), "x", ec_key["y"].clone()), "not on P-256", false),
        (changed(ec_key, "crv", json!("P-384")), "not supported", true),
        (changed(jwk(ED25519, "k"), "x", json!("AAAA")), "Ed25519", false),
        (json!({"kty": "oct", "kid": "k", "k": "AAAA"}), "secret", false),
    ] {
        let (keys, left_out) = published::read(std::slice::from_ref(&key));
        assert!(keys.is_empty(), "{key}");
        assert!(left_out[0].why.contains(why), "{key}: {}", left_out[0].why);
        assert_eq!(left_out[0].is_usual, is_usual, "{key}");
    }
    let (ring, beyond) = KeyRing::new(published::read(&six_of_one_name()).0);
    assert_eq!(beyond.len(), 2);
    assert_eq!(ring.find(Some("k"), Algorithm::Rs256).unwrap().len(), 4);
}

/// Numbers that are no keys of anybody, but might be.
fn six_of_one_name() -> Vec<Value> {
    let numbers = (0..6_u8).map(|byte| [vec![0xff - byte], vec![1; 255]].concat());
    let key = |n| json!({"kty": "RSA", "kid": "k", "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB"});
    numbers.map(key).collect()
}

#[test]
fn a_key_that_stands_in_the_set_twice_is_used_once() {
    let mut again = jwk_of(&rsa(RSA), Named::RS256, "k");
    again["n"] = sloppy(&again["n"], 2);
    let set = [
        jwk_of(&rsa(RSA), Named::RS256, "k"),
        again,
        jwk_of(&rsa(RSA), Named::RS256, "other name"),
        jwk_of(&rsa(RSA_OTHER), Named::RS256, "k"),
    ];
    let (keys, left_out) = published::read(&set);
    assert_eq!((keys.len(), left_out.len()), (3, 1));
    assert_eq!((&*left_out[0].key, left_out[0].is_usual), ("k", true));
    assert!(left_out[0].why.contains("twice"));
}

/// The captured log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_key_left_out_is_logged_once_while_the_set_stays_the_same() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let jwks = Jwks::new("i", &JwksConfig::at("https://id.example/keys")).unwrap();
    let fetched = |set: &[Value]| {
        let (keys, left_out) = published::read(set);
        jwks.take(keys, left_out);
        let mut lines = log.take();
        lines.sort();
        lines
    };
    let of_another_kind = |field: &str, value: Value| {
        let mut key = jwk(ED25519, field);
        key[field] = value;
        key
    };
    let mut set = vec![
        of_another_kind("use", json!("enc")),
        of_another_kind("key_ops", json!(["sign"])),
        of_another_kind("alg", json!("RS256")),
        of_another_kind("crv", json!("X25519")),
        of_another_kind("kty", json!("unheard of")),
        json!({"kty": "RSA", "kid": "small", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "line\nbreak", "n": "", "e": "AQAB"}),
        jwk(ED25519, "good"),
        jwk(ED25519, "good"),
    ];
    insta::assert_snapshot!(fetched(&set).join("\n"), @r#"
    INFO key skipped issuer="i" key="alg" why="its `alg` is not supported for its type"
    INFO key skipped issuer="i" key="crv" why="its type or curve is not supported"
    INFO key skipped issuer="i" key="good" why="the same key stands in the set twice"
    INFO key skipped issuer="i" key="key_ops" why="its `key_ops` have no `verify`"
    INFO key skipped issuer="i" key="kty" why="its type or curve is not supported"
    INFO key skipped issuer="i" key="use" why="its `use` is not `sig`"
    WARN key skipped issuer="i" key="line\nbreak" why="its modulus has not 2,048 to 8,192 bits"
    WARN key skipped issuer="i" key="small" why="its modulus has not 2,048 to 8,192 bits"
    "#);
    assert_eq!(fetched(&set), [""; 0], "the same set says nothing more");
    set.push(of_another_kind("use", json!("enc")));
    set.last_mut().unwrap()["kid"] = json!("new");
    let lines = fetched(&set);
    assert!(lines.len() == 1 && lines[0].contains(r#"key="new""#), "{lines:?}");
    assert_eq!(fetched(&six_of_one_name()).len(), 1, "those beyond the fourth");
}
