use crate::policy::Action;
use crate::policy::check::Scope;
use crate::policy::claims::Claims;
use crate::policy::expression::Expression;
use crate::policy::variables::{About, Variables};

fn compile(source: &str, event: bool) -> Result<(), String> {
    let scope = Scope {
        captures: Some(vec!["project".to_owned()]),
        event,
        request: !event,
    };
    Expression::compile(source, &scope).map(drop)
}

#[test]
fn what_can_work_is_accepted() {
    for source in [
        "true",
        "claims.admin",
        "claims.email_verified == true",
        "claims.tenant_id == room.tenant && room.project in claims.projects",
        "has(claims.org) && has(claims.org.role) && claims.org.role == 'owner'",
        "claims['https://example.com/roles'].exists(r, r == 'editor')",
        "claims.teams.exists(t, t.id == room.project && t.roles.exists(r, r == 'w'))",
        "room.project in claims.teams.map(t, t.id)",
        "room.project in claims.teams.filter(t, t.active).map(t, t.id)",
        "claims.teams.all(t, size(t) > 2)",
        "user.id == room.project || user.tenant == room.tenant",
        "room.name.startsWith('project:') && room['project'].size() > 0",
        "room.name.matches('^project:[0-9]+$')",
        "int(room.project) > 3 && string(claims.level) != '4'",
        "claims.level + 1 > 2 && claims.level - 0.5 < 3.0",
        "claims.vip ? room.project == 'a' : room.project == 'b'",
        "!(room.project in ['a', 'b'])",
        "type(claims.level) == type(1)",
        "type(claims.a) == string || type(claims.a) in [list, map]",
        "'sub' in claims && 1 in [1, 2] && -1 < 0",
    ] {
        assert_eq!(compile(source, false), Ok(()), "{source}");
    }
    assert_eq!(compile("event.name.startsWith('cursor:')", true), Ok(()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn what_cannot_work_is_refused_with_its_reason() {
    for (source, reason) in [
        ("clams.sub == 'x'", "unknown variable `clams`"),
        ("room.projct in claims.projects", "unknown field of `room` `projct`"),
        ("room['projct'] == 'a'", "unknown field of `room` `projct`"),
        ("has(room.projct)", "unknown field of `room` `projct`"),
        ("user.name == 'x'", "unknown field of `user` `name`"),
        ("event.name == 'x'", "there is no event in this condition"),
        ("room.project > 3", "a string and an int have no order"),
        ("room.project == 3", "a string never equals an int"),
        ("true == 'true'", "a bool never equals a string"),
        ("type(claims.a) == 'string'", "a type never equals a string"),
        (
            "string == claims.a && string",
            "each side of `&&` must be a bool, this is a type",
        ),
        ("room.project", "a condition must be a bool, this is a string"),
        ("size(claims)", "a condition must be a bool, this is an int"),
        (
            "room.project && true",
            "each side of `&&` must be a bool, this is a string",
        ),
        ("true || 1", "each side of `||` must be a bool, this is an int"),
        ("!room.project", "what `!` negates must be a bool, this is a string"),
        (
            "1 ? true : false",
            "what stands before `?` must be a bool, this is an int",
        ),
        ("lower(room.project) == 'a'", "unknown function `lower`"),
        ("room.project.startWith('a')", "unknown function `startWith`"),
        (
            "startsWith(room.project, 'a')",
            "`startsWith` is called as `x.name(..)`",
        ),
        ("room.project.int() == 3", "`int` is called as `name(x)`"),
        (
            "room.project.startsWith()",
            "`startsWith` takes 1 argument(s), this call has 0",
        ),
        (
            "room.project.startsWith(3)",
            "the argument of `startsWith` must be a string, this is an int",
        ),
        (
            "[1].contains(1)",
            "what `contains` is called on must be a string, this is a list",
        ),
        ("size(3) > 1", "an int has no size"),
        ("room.project.x == 'a'", "a string has no field `x`"),
        (
            "'a' in room.project",
            "what stands after `in` must be a list or a map, this is a string",
        ),
        ("1 in room", "the keys of the map `room` are strings, this is an int"),
        ("'a' + 1 == 'a1'", "no such arithmetic between a string and an int"),
        ("1 + 1.0 == 2.0", "no such arithmetic between an int and a double"),
        ("-room.project == 1", "a string has no negative"),
        ("room.project[0] == 'a'", "a string cannot be indexed"),
        (
            "room.project.exists(c, c == 'a')",
            "`exists` walks over a list or a map, this is a string",
        ),
        ("claims.a.exists(x)", "`exists` is called as"),
        (
            "claims.a.exists(x, 1)",
            "the condition of `exists` must be a bool, this is an int",
        ),
        ("claims.a.exists(x, y == 1)", "unknown variable `y`"),
        ("has(claims)", "`has` takes a field"),
        (
            "claims.a.exists(x, claims.b.exists(y, x == y))",
            "this `exists` runs once for each `x`",
        ),
        ("claims.a.map(x, claims).size() > 1", "`map` may only pick a field"),
        (
            "room.project.matches(claims.pattern)",
            "the pattern of `matches` must be written out as a string",
        ),
        ("room.project.matches('(')", "this is not a regular expression"),
        ("Thing{a: 1} == claims", "this is not supported"),
        ("claims.a ==", ""),
        ("", ""),
    ] {
        let error = compile(source, false).expect_err(source);
        assert!(error.starts_with(reason), "{source}\n{error}");
    }
}

/// Every function and operator of the documentation, in its usual use: each of these is true.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn everything_that_is_documented_works_as_it_is_used() {
    let claims = serde_json::json!({
        "text": "7", "int": 7, "double": 1.5, "flag": true, "none": null, "list": [1, 2], "map": {"a": 1},
        "teams": [{"id": "p", "active": true}, {"id": "q", "active": false}],
    });
    let holds = [
        ("has", "has(claims.text) && !has(claims.other)"),
        (
            "size",
            "size(claims.list) == 2 && claims.text.size() == 1 && size(claims.map) == 1",
        ),
        ("contains", "room.name.contains('p')"),
        ("startsWith", "room.name.startsWith('p')"),
        ("endsWith", "room.name.endsWith('p')"),
        ("matches", "claims.text.matches('^[0-9]+$')"),
        ("exists", "claims.teams.exists(t, t.id == room.project)"),
        ("all", "claims.list.all(n, n > 0)"),
        ("exists_one", "claims.teams.exists_one(t, t.active)"),
        ("filter", "size(claims.teams.filter(t, t.active)) == 1"),
        (
            "map",
            "room.project in claims.teams.map(t, t.id) && 'p' in claims.teams.map(t, t.active, t.id)",
        ),
        ("bool", "bool('true') && type(claims.flag) == bool"),
        ("bytes", "bytes(claims.text) == b'7' && type(bytes('')) == bytes"),
        ("double", "double(claims.text) == 7.0 && type(claims.double) == double"),
        ("dyn", "dyn(claims.int) == 7"),
        ("int", "int(claims.text) == claims.int && type(claims.int) == int"),
        (
            "string",
            "string(claims.int) == claims.text && type(claims.text) == string",
        ),
        (
            "type",
            "type(claims.list) == list && type(claims.map) == map && type(claims.none) == null_type && type(string) == type",
        ),
        ("uint", "uint(claims.int) == 7u && type(uint(1)) == uint"),
        ("&&", "true && claims.flag"),
        ("||", "false || claims.flag"),
        ("!", "!false"),
        ("==", "claims.int == 7 && claims.double == 1.5 && claims.none == null"),
        ("!=", "claims.text != '8'"),
        ("<", "claims.int < 8"),
        ("<=", "claims.int <= 7"),
        (">", "claims.int > 6"),
        (">=", "claims.int >= 7"),
        ("+", "claims.int + 1 == 8 && claims.text + 'x' == '7x'"),
        ("-", "claims.int - 1 == 6 && -claims.int == -7"),
        ("*", "claims.int * 2 == 14"),
        ("/", "claims.int / 2 == 3"),
        ("%", "claims.int % 2 == 1"),
        ("in", "2 in claims.list && 'a' in claims.map"),
        ("?:", "claims.flag ? claims.int == 7 : false"),
        (
            "[]",
            "claims['text'] == '7' && claims.list[0] == 1 && claims.map['a'] == 1",
        ),
    ];
    let page = include_str!("../../../docs/permissions.md");
    let (_, section) = page.split_once("Operators: ").unwrap();
    let (section, _) = section.split_once("A loop within").unwrap();
    let words = section.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let documented: std::collections::BTreeSet<_> = words.collect();
    let shown: std::collections::BTreeSet<_> = holds.iter().map(|(name, _)| *name).collect();
    assert_eq!(shown, documented, "an example for each, and each documented");

    let identity = crate::policy::rules::tests::identity("a", &claims);
    let room = crate::room::Room::parse(&identity.tenant, "p").unwrap();
    let (claims, captures) = (Claims::default(), [("project".to_owned(), "p".into())]);
    let scope = Scope {
        captures: Some(vec!["project".to_owned()]),
        ..Scope::default()
    };
    for (name, source) in holds {
        let expression = Expression::compile(source, &scope).unwrap_or_else(|error| panic!("{name}: {error}"));
        let about = About {
            room: &room,
            captures: &captures,
            action: &Action::Join,
        };
        assert_eq!(
            expression.holds(&Variables::new(&identity, &claims, Some(about))),
            Ok(true),
            "{name}"
        );
    }
}

#[test]
fn an_expression_longer_than_its_bound_is_refused() {
    let long = format!("claims.a == '{}'", "x".repeat(2_048));
    assert!(compile(&long, false).unwrap_err().contains("at most 2048 bytes"));
    let deep = format!("{}true{}", "(".repeat(900), ")".repeat(900));
    assert!(compile(&deep, false).is_err());
}

#[test]
fn a_deep_expression_is_refused_and_what_is_accepted_can_be_evaluated() {
    let identity = crate::policy::rules::tests::identity("a", &serde_json::json!({}));
    let claims = Claims::default();
    for (unit, end) in [
        ("!", "true"),
        ("-", "1 == 1"),
        ("claims.a ? true : ", "true"),
        ("true && ", "true"),
        ("1 + ", "1 == 1"),
        ("claims.a + ", "1 == 1"),
        ("[", "1"),
        ("(", "1"),
        ("claims[", "'a'"),
    ] {
        for times in [20, 60, 2_000 / unit.len()] {
            let close = if unit.ends_with('[') {
                "]"
            } else if unit == "(" {
                ")"
            } else {
                ""
            };
            let source = format!("{}{end}{}", unit.repeat(times), close.repeat(times));
            if let Ok(expression) = Expression::compile(&source, &Scope::default()) {
                let _ = expression.holds(&Variables::new(&identity, &claims, None));
            }
        }
    }
    let many = vec!["room.project == 'a'"; 60].join(" || ");
    assert_eq!(compile(&many, false), Ok(()));
    assert!(compile(&format!("claims{} == 1", ".a".repeat(900)), false).is_err());
}

#[test]
fn an_error_shows_the_place_and_what_was_probably_meant() {
    let error = compile(
        "claims.tenant_id == room.tenant\n  && room.projct in claims.projects",
        false,
    );
    insta::assert_snapshot!(error.unwrap_err(), @r"
    unknown field of `room` `projct` (line 2, column 6)
      |   && room.projct in claims.projects
      |      ^^^^^^^^^^^
      did you mean `project`? known here: `name`, `tenant`, `project`
    ");
    insta::assert_snapshot!(compile("claims.a == = 3", false).unwrap_err(), @r"
    Syntax error: token recognition error at: '= ' (line 1, column 13)
      | claims.a == = 3
      |             ^
    ");
}

proptest::proptest! {
    /// Whatever is written, the answer is an expression or an error, and an expression can be evaluated.
    #[test]
    fn nothing_that_is_written_breaks_the_compiler(
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "claims", "room", "event", "user", "x", ".", ".project", ".name", ".a", "(", ")", "[", "]", "{", "}", ",", ":",
            "?", "!", "-", "+", "*", "%", "/", "==", "!=", "<", ">=", "&&", "||", " in ", "'a'", "\"", "'", "1", "1.5", "2u",
            "b'x'", "true", "null", "has(", "size(", ".exists(x, ", ".map(x, ", ".matches('", "int(", "\\", "\u{e9}", "\n",
        ]), 0..14),
    ) {
        let source = tokens.concat();
        let scope = Scope { captures: Some(vec!["project".to_owned()]), event: true, request: true };
        match Expression::compile(&source, &scope) {
            Err(error) => proptest::prop_assert!(!error.contains("gave up"), "{}", source),
            Ok(expression) => {
                let identity = crate::policy::rules::tests::identity("a", &serde_json::json!({"a": [1, {"a": "a"}]}));
                let claims = Claims::default();
                let _ = expression.holds(&Variables::new(&identity, &claims, None));
            }
        }
    }
}
