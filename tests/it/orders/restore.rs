//! Withdrawing access of a user's older tokens, of one connection and of one token; giving it back; what is withdrawn.

use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, HistoryQuery, Join, PresenceQuery, Refresh, RoomChangeCause};
use roomcast::proto::v1;
use roomcast::proto::v1::revoke_request::Subject;
use serde_json::json;
use tonic::Code;

use super::expect_left;
use super::revoke::the_room;
use crate::support::{Client, Encoding, InRoom as _, Node, TENANT, User, in_seconds, over_encodings, reason, user};

over_encodings! {
    restored_access_is_back_and_listed_no_more,
    a_revoked_connection_is_out_and_the_users_other_one_stays,
    a_revoked_token_is_out_wherever_it_is_used,
    older_tokens_are_out_and_a_newer_login_is_let_in,
}

fn revocation(subject: Subject) -> v1::RevokeRequest {
    v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        subject: Some(subject),
        scope: Some(the_room("r")),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..Default::default()
    }
}

async fn revoke(node: &Node, request: v1::RevokeRequest) -> v1::RevokeResponse {
    let revoked = node.backend().access.clone().revoke(request).await.unwrap();
    let revoked = revoked.into_inner();
    assert_eq!(revoked.unconfirmed_node_ids, Vec::<String>::new());
    revoked
}

fn restoration(revocation_id: &str) -> v1::RestoreRequest {
    v1::RestoreRequest {
        tenant: TENANT.to_owned(),
        revocation_id: revocation_id.to_owned(),
        ..Default::default()
    }
}

async fn listed(node: &Node, user: &str) -> Vec<v1::Revocation> {
    let request = v1::ListRevocationsRequest {
        tenant: TENANT.to_owned(),
        user_id: user.to_owned(),
        ..Default::default()
    };
    let page = node.backend().access.clone().list_revocations(request).await;
    page.unwrap().into_inner().revocations
}

/// Whether everything that asks for the room is refused, or nothing is.
async fn is_out(client: &mut Client) -> bool {
    let room = || "r".to_owned();
    let history = HistoryQuery {
        room: room(),
        ..Default::default()
    };
    let commands = [
        Command::Join(Join::in_room("r")),
        Command::HistoryQuery(history),
        Command::PresenceQuery(PresenceQuery { room: room() }),
    ];
    let mut refused = Vec::new();
    for command in commands {
        refused.push(match client.ask(command).await {
            Ok(_) => false,
            Err(refusal) => {
                assert_eq!(refusal.code(), ErrorCode::Forbidden, "{refusal:?}");
                true
            }
        });
    }
    assert!(refused.iter().all(|one| *one == refused[0]), "{refused:?}");
    refused[0]
}

async fn refresh(client: &mut Client, user: &User) {
    let refresh = Refresh { token: user.token() };
    let Ok(Said::Refreshed(_)) = client.ask(Command::Refresh(refresh)).await else {
        panic!("not refreshed")
    };
}

async fn restored_access_is_back_and_listed_no_more(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut access = node.backend().access;
    let mut ada = node.connect(user("ada")).await;
    let revoked = revoke(&node, revocation(Subject::UserId("ada".to_owned()))).await;
    assert!(is_out(&mut ada).await);
    let [entry] = <[_; 1]>::try_from(listed(&node, "ada").await).unwrap();
    assert_eq!(entry.revocation_id, revoked.revocation_id);
    assert_eq!(entry.subject, Some(v1::revocation::Subject::UserId("ada".to_owned())));
    let (from, until) = (entry.create_time.unwrap(), entry.expire_time.unwrap());
    assert_eq!(until.seconds - from.seconds, 3600);
    assert_eq!(listed(&node, "ben").await, []);
    let explained = access
        .explain(v1::ExplainRequest {
            tenant: TENANT.to_owned(),
            subject: Some(v1::explain_request::Subject::ConnectionId(ada.id.clone())),
            action: v1::Action::Join.into(),
            room: "r".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(explained.rule, "revocation");
    assert!(explained.message.contains(&revoked.revocation_id), "{explained:?}");
    for _ in 0..2 {
        // Again is no error: a call may be repeated.
        let restored = access.restore(restoration(&revoked.revocation_id)).await.unwrap();
        let mut confirmed = restored.into_inner().confirmed_node_ids;
        confirmed.sort();
        assert_eq!(confirmed, node.ids());
    }
    assert!(!is_out(&mut ada).await);
    assert_eq!(listed(&node, "").await, []);
    let unknown = access.restore(restoration(&"0".repeat(32))).await.unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::NotFound, "REVOCATION_NOT_FOUND")
    );
    let elsewhere = v1::RestoreRequest {
        tenant: "elsewhere".to_owned(),
        ..restoration(&revoked.revocation_id)
    };
    assert_eq!(access.restore(elsewhere).await.unwrap_err().code(), Code::NotFound);
    let junk = access.restore(restoration("junk")).await.unwrap_err();
    assert_eq!(junk.code(), Code::InvalidArgument);
    node.finish().await;
}

async fn a_revoked_connection_is_out_and_the_users_other_one_stays(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let (mut phone, mut laptop) = (node.connect(user("ada")).await, node.connect(user("ada")).await);
    for client in [&mut phone, &mut laptop] {
        client.join("r").await;
    }
    let revoked = revoke(&node, revocation(Subject::ConnectionId(phone.id.clone()))).await;
    assert_eq!(revoked.removed_membership_count, 1);
    expect_left(&mut phone, "r", RoomChangeCause::Revoked).await;
    backend.publish("r", "later", json!({})).await;
    laptop.expect_event("r", "later").await;
    assert!(is_out(&mut phone).await && !is_out(&mut laptop).await);
    let member = v1::join_room_request::Member::ConnectionId(phone.id.clone());
    let refused = super::join(&backend, "r", member).await.unwrap_err();
    assert_eq!(reason(&refused), "ACCESS_REVOKED");
    node.finish().await;
}

async fn a_revoked_token_is_out_wherever_it_is_used(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let token = |id: &str| user("ada").claim("jti", id);
    let (mut old, mut new) = (node.connect(token("t1")).await, node.connect(token("t2")).await);
    for client in [&mut old, &mut new] {
        client.join("r").await;
    }
    let revoked = revoke(&node, revocation(Subject::TokenId("t1".to_owned()))).await;
    assert_eq!(revoked.removed_membership_count, 1);
    expect_left(&mut old, "r", RoomChangeCause::Revoked).await;
    assert!(is_out(&mut old).await && !is_out(&mut new).await);
    let mut later = node.connect(token("t1")).await;
    assert!(is_out(&mut later).await);
    // The token that a session has now counts.
    refresh(&mut old, &token("t3")).await;
    assert!(!is_out(&mut old).await);
    refresh(&mut new, &token("t1")).await;
    expect_left(&mut new, "r", RoomChangeCause::Revoked).await;
    assert!(is_out(&mut new).await);
    backend.publish("r", "end", json!({})).await;
    old.expect_event("r", "end").await;
    let revoked = revoke(&node, revocation(Subject::TokenId("t3".to_owned()))).await;
    assert_eq!(revoked.removed_membership_count, 1, "it is found by its present token");
    expect_left(&mut old, "r", RoomChangeCause::Revoked).await;
    node.finish().await;
}

async fn older_tokens_are_out_and_a_newer_login_is_let_in(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let issued = |seconds| user("ada").claim("iat", in_seconds(seconds));
    let mut old = node.connect(issued(-60)).await;
    let mut unsaid = node.connect(user("ada")).await;
    let mut new = node.connect(issued(-10)).await;
    for client in [&mut old, &mut unsaid, &mut new] {
        client.join("r").await;
    }
    let request = v1::RevokeRequest {
        issued_before: Some(prost_types::Timestamp {
            seconds: in_seconds(-30),
            nanos: 0,
        }),
        ..revocation(Subject::UserId("ada".to_owned()))
    };
    let revoked = revoke(&node, request.clone()).await;
    assert_eq!(revoked.removed_membership_count, 2);
    let entry = listed(&node, "ada").await.remove(0);
    assert_eq!(entry.issued_before, request.issued_before);
    for client in [&mut old, &mut unsaid] {
        expect_left(client, "r", RoomChangeCause::Revoked).await;
        assert!(is_out(client).await);
    }
    assert!(!is_out(&mut new).await);
    refresh(&mut old, &issued(0)).await;
    assert!(!is_out(&mut old).await);
    node.finish().await;
}
