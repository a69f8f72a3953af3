use super::*;
use crate::identity::Expiry;
use crate::json::Json;

fn identity(claims: &str) -> Identity {
    Identity {
        tenant: Tenant::default(),
        user: UserId::parse("ada").unwrap(),
        claims: Json::parse(claims.to_owned()).unwrap().into(),
        expiry: Expiry(0),
    }
}

fn hits(subject: RevocationSubject, issued_before: Option<u64>, claims: &str) -> bool {
    let revocation = Revocation {
        tenant: Tenant::default(),
        subject,
        issued_before: issued_before.map(Timestamp),
        scope: RevocationScope::Everything,
    };
    let identity = identity(claims);
    let bearer = Bearer {
        identity: &identity,
        connection: ConnectionId::random(),
    };
    let room = Room::parse(&Tenant::default(), "r").unwrap();
    assert_eq!(revocation.covers(bearer, &room), revocation.hits(bearer));
    revocation.hits(bearer)
}

fn ada() -> RevocationSubject {
    RevocationSubject::User(UserId::parse("ada").unwrap())
}

#[test]
fn older_tokens_are_hit_and_newer_ones_are_not() {
    for (claims, hit) in [
        (r#"{"iat":99}"#, true),
        (r#"{"iat":99.999}"#, true),
        (r#"{"iat":100}"#, false),
        (r#"{"iat":100.5,"x":{"iat":1}}"#, false),
        (r#"{"x":[1,{"iat":200}],"iat":99}"#, true),
        ("{}", true),
        (r#"{"iat":"100"}"#, true),
        (r#"{"iat":null}"#, true),
        (r#"{"iat":-5}"#, true),
    ] {
        assert_eq!(hits(ada(), Some(100_000), claims), hit, "{claims}");
        assert!(hits(ada(), None, claims), "{claims}");
    }
}

#[test]
fn a_token_is_hit_by_its_own_id_only() {
    for (id, claims, hit) in [
        ("a/b", r#"{"jti":"a/b"}"#, true),
        ("a/b", r#"{"jti":"a\/b"}"#, true),
        ("a/b", r#"{"jti":"\u0061/b"}"#, true),
        ("a/b", r#"{"jti":"a/bc"}"#, false),
        ("a/b", r#"{"sub":"a/b","x":{"jti":"a/b"}}"#, false),
        ("7", r#"{"jti":7}"#, false),
    ] {
        let subject = RevocationSubject::Token(TokenId::parse(id).unwrap());
        assert_eq!(hits(subject, None, claims), hit, "{claims}");
    }
}

#[test]
fn a_connection_is_hit_by_its_own_id_only() {
    let elsewhere = RevocationSubject::Connection(ConnectionId::random());
    assert!(!hits(elsewhere, None, "{}"));
}

#[test]
fn ids_are_read_back_and_sort_by_their_time() {
    let id = RevocationId::new(Timestamp(1_700_000_000_000));
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!(id < RevocationId::new(Timestamp(1_700_000_000_001)));
    for text in ["", "0", &"A".repeat(32), &"0".repeat(33)] {
        assert_eq!(text.parse::<RevocationId>(), Err(RevocationIdError), "{text}");
    }
}
