//! The contract as the languages see it that generate code from `proto/`.

mod names;

use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor};

/// Words a language keeps for itself, so that its generator leaves the field out or twists its name: Python's keywords,
/// Kotlin's hard keywords, and what every object answers in Java and Ruby. `method` is one of the last, and stays: in Ruby it is
/// read as `request["method"]`.
const KEPT: [&str; 66] = [
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "clone",
    "continue",
    "def",
    "del",
    "display",
    "do",
    "dup",
    "elif",
    "else",
    "except",
    "extend",
    "false",
    "finally",
    "for",
    "freeze",
    "from",
    "fun",
    "global",
    "hash",
    "if",
    "import",
    "in",
    "inspect",
    "instance_of",
    "interface",
    "is",
    "itself",
    "lambda",
    "nil",
    "none",
    "nonlocal",
    "not",
    "null",
    "object",
    "object_id",
    "or",
    "package",
    "pass",
    "raise",
    "rescue",
    "return",
    "self",
    "send",
    "super",
    "tap",
    "then",
    "this",
    "throw",
    "true",
    "try",
    "typealias",
    "typeof",
    "unless",
    "val",
    "var",
    "when",
    "while",
    "with",
    "yield",
];

/// Our own files; what they import is Google's.
fn files() -> impl Iterator<Item = FileDescriptor> {
    let pool = DescriptorPool::decode(roomcast::proto::FILE_DESCRIPTOR_SET).unwrap();
    let own = |file: &FileDescriptor| file.package_name().starts_with("roomcast.");
    pool.files().filter(own).collect::<Vec<_>>().into_iter()
}

/// What nodes say to each other is left out: nobody generates code from it elsewhere.
fn messages() -> impl Iterator<Item = MessageDescriptor> {
    let public = files().filter(|file| file.package_name() != "roomcast.node.v1");
    public.flat_map(|file| file.messages().collect::<Vec<_>>())
}

#[test]
fn no_field_has_a_name_that_a_language_keeps() {
    let mut fields = 0;
    for message in messages() {
        for field in message.fields() {
            assert!(!KEPT.contains(&field.name()), "{}", field.full_name());
            fields += 1;
        }
        for oneof in message.oneofs() {
            assert!(!KEPT.contains(&oneof.name()), "{}", oneof.full_name());
        }
    }
    assert!(fields > 200, "{fields}");
}

#[test]
fn every_file_says_where_each_language_puts_it() {
    for file in files() {
        let (name, package) = (file.name().to_owned(), file.package_name().to_owned());
        let path: Vec<&str> = package.split('.').collect();
        let titled = |separator: &str| {
            let parts = path.iter().map(|part| part[..1].to_uppercase() + &part[1..]);
            parts.collect::<Vec<_>>().join(separator)
        };
        let stem = name.rsplit('/').next().unwrap().strip_suffix(".proto").unwrap();
        let outer: String = stem
            .split('_')
            .map(|part| part[..1].to_uppercase() + &part[1..])
            .collect();
        let options = file.file_descriptor_proto().options.clone().unwrap();
        assert_eq!(options.java_package(), format!("dev.{package}"), "{name}");
        assert_eq!(options.java_outer_classname(), format!("{outer}Proto"), "{name}");
        assert!(options.java_multiple_files(), "{name}");
        assert_eq!(options.csharp_namespace(), titled("."), "{name}");
        assert_eq!(options.php_namespace(), titled("\\"), "{name}");
        assert_eq!(options.php_metadata_namespace(), titled("\\") + "\\Metadata", "{name}");
        assert_eq!(options.ruby_package(), titled("::"), "{name}");
        assert_eq!(options.swift_prefix(), titled(""), "{name}");
        let go = format!("github.com/roomcast/roomcast/gen/go/{};", path.join("/"));
        assert!(
            options.go_package().starts_with(&go),
            "{name}: {}",
            options.go_package()
        );
    }
}

/// In a language without packages for messages, or with outer classes, two of one name would be one.
#[test]
fn no_two_messages_of_a_package_differ_only_in_case() {
    let mut names: Vec<String> = messages().map(|message| message.full_name().to_lowercase()).collect();
    names.sort();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
}

/// How the methods begin that only tell their caller something. A filter that an old server skips tells a caller more of what
/// it may read anyway, and nobody else.
const READS: [&str; 3] = ["Explain", "Get", "List"];

/// Commands that need no `required_features`, each with the reason: a field that an old server skips widens nothing.
const NEVER_NARROWED: [(&str, &str); 10] = [
    ("answer", "has one receiver, the backend that asked"),
    ("connect", "features are what it negotiates"),
    ("history_query", "only its sender is told"),
    ("leave", "concerns its sender alone"),
    ("ping", "concerns its sender alone"),
    ("presence_query", "only its sender is told"),
    (
        "presence_update",
        "changes what a join has shown, to those whom the policy shows it",
    ),
    ("refresh", "concerns its sender alone"),
    ("request", "has one receiver, the backend"),
    ("user_rooms_query", "only its sender is told"),
];

fn names_what_it_requires(message: &MessageDescriptor) -> bool {
    let field = message.get_field_by_name("required_features");
    field.is_some_and(|field| field.is_list() && field.kind() == Kind::String)
}

#[test]
fn every_call_that_may_narrow_has_required_features() {
    let mut found = 0;
    for file in files().filter(|file| file.package_name() == "roomcast.v1") {
        for method in file
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            if READS.iter().any(|prefix| method.name().starts_with(prefix)) {
                continue;
            }
            let input = method.input();
            // A batch or a stream of requests, of which each names its own.
            let mut items = input.fields().filter_map(|field| field.kind().as_message().cloned());
            let names_it = names_what_it_requires(&input) || items.any(|item| names_what_it_requires(&item));
            assert!(names_it, "{}", method.full_name());
            found += 1;
        }
    }
    assert!(found >= 9, "{found}");
}

#[test]
fn every_command_that_may_narrow_has_required_features() {
    let frame = messages().find(|message| message.full_name() == "roomcast.client.v1.ClientFrame");
    let commands = frame.unwrap().oneofs().find(|oneof| oneof.name() == "command").unwrap();
    let without = commands
        .fields()
        .filter(|field| !names_what_it_requires(field.kind().as_message().unwrap()));
    let mut without: Vec<String> = without.map(|field| field.name().to_owned()).collect();
    without.sort();
    assert_eq!(without, NEVER_NARROWED.map(|(command, _)| command));
}

/// A program that only publishes carries nothing of what backends serve.
#[test]
fn what_a_backend_serves_is_a_package_of_its_own() {
    for file in files() {
        let services: Vec<String> = file.services().map(|service| service.name().to_owned()).collect();
        let is_served_by_backends = |name: &String| name == "AuthorizerService" || name == "ClientEventService";
        let of_backends = file.package_name() == "roomcast.backend.v1";
        assert!(
            services.iter().all(|name| is_served_by_backends(name) == of_backends),
            "{}: {services:?}",
            file.name()
        );
    }
}
