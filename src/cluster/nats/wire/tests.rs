use proptest::prelude::*;

use super::*;
use crate::identity::ConnectionId;
use crate::policy::Permit;

fn anyone() -> impl Strategy<Value = Audience> {
    let tenant = || "[a-z]{1,10}".prop_map(|name| Tenant::parse(&name).unwrap());
    prop_oneof![
        (tenant(), "[a-zé]{1,20}").prop_map(|(tenant, user)| Audience::User(tenant, UserId::parse(&user).unwrap())),
        tenant().prop_map(|tenant| Audience::Connection(tenant, ConnectionId::random())),
    ]
}

fn permit(room: Room, service: &str) -> Permit {
    let service = Service {
        name: service.into(),
        publish: false,
        read: false,
        manage: true,
        subscribe: false,
        tenants: None,
    };
    service.permit(room, Action::Join).unwrap()
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<i64>().prop_map(|number| Payload::Json(Json::parse(format!("{{\"n\":{number}}}")).unwrap())),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Payload::Binary(bytes.into())),
    ]
}

fn sends() -> impl Strategy<Value = Order> {
    let fields = (
        anyone(),
        payloads(),
        proptest::option::of("[a-z]{1,9}"),
        any::<u128>(),
        any::<u64>(),
    );
    fields.prop_map(|(audience, payload, actor, id, time)| {
        let event = Event {
            room: Room::nameless(audience.tenant()),
            id: EventId::from_bits(id),
            name: EventName::parse("greeting").unwrap(),
            retention: Retention::Ephemeral,
            link: None,
            time: Timestamp(time),
            actor: actor.map(|actor| UserId::parse(&actor).unwrap()),
            except: Except::NOBODY,
            payload,
        };
        audience.order(Verb::Send(Arc::new(event)))
    })
}

fn orders() -> impl Strategy<Value = Order> {
    let notice = || ("[a-z_]{0,8}", "[a-zé ]{0,20}").prop_map(|(reason, message)| notice(&reason, &message));
    let room = |audience: &Audience, name: &str| Room::parse(audience.tenant(), name).unwrap();
    prop_oneof![
        (anyone(), "[a-z:]{1,20}", "[a-z]{1,9}").prop_map(move |(audience, name, service)| {
            let verb = Verb::Join(permit(room(&audience, &name), &service));
            audience.order(verb)
        }),
        (anyone(), "[a-z:]{1,20}", notice()).prop_map(move |(audience, name, notice)| {
            let verb = Verb::Leave(room(&audience, &name), notice);
            audience.order(verb)
        }),
        (anyone(), proptest::sample::select(&CloseReason::ALL[..]), notice())
            .prop_map(|(audience, reason, notice)| audience.order(Verb::Disconnect(reason, notice))),
        sends(),
        anyone().prop_map(|audience| audience.order(Verb::Count)),
        anyone().prop_map(|audience| audience.order(Verb::Identify)),
    ]
}

/// What orders come to, each with a verb that comes to it.
fn outcomes() -> impl Strategy<Value = (Verb, Outcome)> {
    let refusals = [JoinRefusal::RoomLimit, JoinRefusal::Revoked, JoinRefusal::Unavailable];
    let refused = proptest::option::of(proptest::sample::select(refusals.to_vec()));
    let identity = ("[a-z]{1,9}", any::<u64>()).prop_map(|(user, expiry)| {
        Arc::new(Identity {
            tenant: Tenant::default(),
            claims: Json::parse(format!("{{\"sub\":\"{user}\"}}")).unwrap().into(),
            user: UserId::parse(&user).unwrap(),
            expiry: Expiry(expiry),
        })
    });
    prop_oneof![
        any::<u32>().prop_map(|connections| (Verb::Count, Outcome::of(connections))),
        (any::<u32>(), refused).prop_map(|(connections, refused)| {
            let room = Room::parse(&Tenant::default(), "r").unwrap();
            let outcome = Outcome {
                connections,
                refused,
                identity: None,
            };
            (Verb::Join(permit(room, "backend")), outcome)
        }),
        proptest::option::of(identity).prop_map(|identity| (Verb::Identify, Outcome::identified(identity))),
    ]
}

proptest! {
    #[test]
    fn an_order_is_read_as_it_was_given(given in orders()) {
        prop_assert_eq!(read_order(order(&given)), Some(given));
    }

    #[test]
    fn an_answer_is_read_as_it_was_given((verb, given) in outcomes()) {
        prop_assert_eq!(outcome(answer(&verb, given.clone())), Some(given));
    }

    #[test]
    fn whatever_comes_is_an_order_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        use prost::Message as _;
        if let Some(order) = wire::NodeOrder::decode(&*bytes).ok().and_then(|order| order.order) {
            let _ = read_order(order);
        }
    }
}

#[test]
fn an_order_for_nobody_or_without_a_room_is_none() {
    assert_eq!(read_order(WireOrder::Count(wire::CountOrder { whom: None })), None);
    assert_eq!(read_order(WireOrder::Join(wire::JoinOrder::default())), None);
    let unknown = wire::DisconnectOrder {
        whom: Some(whom(&Audience::User(Tenant::default(), UserId::parse("ada").unwrap()))),
        code: 1,
        message: String::new(),
        reason: String::new(),
    };
    assert_eq!(read_order(WireOrder::Disconnect(unknown)), None);
}
