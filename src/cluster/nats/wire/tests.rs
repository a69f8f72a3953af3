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

fn permit(audience: &Audience, room: &str, service: &str) -> Permit {
    let service = Service {
        name: service.into(),
        publish: false,
        read: false,
        manage: true,
        tenants: None,
    };
    service.permit(room_of(audience, room).unwrap(), Action::Join).unwrap()
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<i64>().prop_map(|number| Payload::Json(Json::parse(format!("{{\"n\":{number}}}")).unwrap())),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Payload::Binary(bytes.into())),
    ]
}

fn sends() -> impl Strategy<Value = Command> {
    let fields = (
        anyone(),
        payloads(),
        proptest::option::of("[a-z]{1,9}"),
        any::<u128>(),
        any::<u64>(),
    );
    fields.prop_map(|(audience, payload, actor, id, time)| {
        let event = Event {
            room: Room::nameless(tenant_of(&audience)),
            id: EventId::from_bits(id),
            name: EventName::parse("greeting").unwrap(),
            retention: Retention::Ephemeral,
            link: None,
            time: Timestamp(time),
            actor: actor.map(|actor| UserId::parse(&actor).unwrap()),
            except: Except::NOBODY,
            payload,
        };
        Command::Send(audience, Arc::new(event))
    })
}

fn commands() -> impl Strategy<Value = Command> {
    let notice = || ("[a-z_]{0,8}", "[a-zé ]{0,20}").prop_map(|(reason, message)| notice(&reason, &message));
    prop_oneof![
        (anyone(), "[a-z:]{1,20}", "[a-z]{1,9}").prop_map(|(audience, room, service)| {
            let permit = permit(&audience, &room, &service);
            Command::Join(audience, permit)
        }),
        (anyone(), "[a-z:]{1,20}", notice()).prop_map(|(audience, room, notice)| {
            let room = room_of(&audience, &room).unwrap();
            Command::Leave(audience, room, notice)
        }),
        (anyone(), proptest::sample::select(&CloseReason::ALL[..]), notice())
            .prop_map(|(audience, reason, notice)| Command::Disconnect(audience, reason, notice)),
        sends(),
        anyone().prop_map(Command::Count),
        anyone().prop_map(Command::Identify),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
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
        any::<u32>().prop_map(Answer::Count),
        (any::<u32>(), refused).prop_map(|(connections, refused)| Answer::Joined(Joined { connections, refused })),
        proptest::option::of(identity).prop_map(Answer::Identity),
    ]
}

proptest! {
    #[test]
    fn an_order_is_read_as_it_was_given(given in commands()) {
        prop_assert_eq!(command(order(&given)), Some(given));
    }

    #[test]
    fn an_answer_is_read_as_it_was_given(given in answers()) {
        prop_assert_eq!(answered(answer(given.clone())), Some(given));
    }

    #[test]
    fn whatever_comes_is_an_order_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        use prost::Message as _;
        if let Some(order) = wire::NodeOrder::decode(&*bytes).ok().and_then(|order| order.order) {
            let _ = command(order);
        }
    }
}

#[test]
fn an_order_for_nobody_or_without_a_room_is_none() {
    assert_eq!(command(WireOrder::Count(wire::CountOrder { whom: None })), None);
    assert_eq!(command(WireOrder::Join(wire::JoinOrder::default())), None);
    let unknown = wire::DisconnectOrder {
        whom: Some(whom(&Audience::User(Tenant::default(), UserId::parse("ada").unwrap()))),
        code: 1,
        message: String::new(),
        reason: String::new(),
    };
    assert_eq!(command(WireOrder::Disconnect(unknown)), None);
}
