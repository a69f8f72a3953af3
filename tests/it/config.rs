//! The configuration's sources, their precedence, and the words for what is wrong with them.

use std::io::Write;

use roomcast::config::{Config, ConfigError, Sources};
use tempfile::NamedTempFile;

/// Settings in all three sources; the file has to live as long as they are read.
struct Given {
    sources: Sources,
    _file: NamedTempFile,
}

fn given(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Given {
    let mut file = NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: owned(environment),
        overrides: owned(flags),
    };
    Given { sources, _file: file }
}

impl Given {
    fn config(&self) -> Config {
        Config::load(&self.sources).unwrap()
    }

    /// Everything that is wrong, with the file's name taken out.
    fn problems(&self) -> Vec<String> {
        self.lines(Config::load(&self.sources))
    }

    /// The same, with what a start would find.
    fn all_problems(&self) -> Vec<String> {
        self.lines(Config::check(&self.sources))
    }

    fn lines(&self, checked: Result<Config, ConfigError>) -> Vec<String> {
        let Err(ConfigError::Wrong(problems)) = checked else {
            panic!("these settings are accepted");
        };
        let file = self.sources.file.as_ref().unwrap().display().to_string();
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&file, "FILE"))
            .collect()
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let file = "[connections]\nper_user_max = 1\nper_address_max = 1\nconnections_max = 1";
    let environment = [
        ("ROOMCAST_CONNECTIONS__PER_USER_MAX", "2"),
        ("ROOMCAST_CONNECTIONS__PER_ADDRESS_MAX", "2"),
    ];
    let config = given(file, &environment, &[("connections.per_user_max", "3")]).config();
    let connections = &config.connections;
    assert_eq!(
        (
            connections.connections_max,
            connections.per_address_max,
            connections.per_user_max
        ),
        (1, 2, 3),
    );
    assert_eq!(config.telemetry, Config::default().telemetry);
}

#[test]
fn variables_that_are_no_settings_are_ignored() {
    let environment = [
        ("ROOMCAST_PORT", "tcp://10.0.0.1:80"),
        ("ROOMCAST_SERVICE_HOST", "10.0.0.1"),
        ("HOME", "/"),
    ];
    given("", &environment, &[]).config();
}

#[test]
fn a_key_nobody_knows_is_named_with_its_origin_and_what_was_meant() {
    let cases = [
        (
            given("[connections]\nper_usr_max = 1", &[], &[]),
            "FILE: connections.per_usr_max: there is no such key; did you mean `connections.per_user_max`?",
        ),
        (
            given("[conections]\nper_user_max = 1", &[], &[]),
            "FILE: conections: there is no such key; did you mean `connections`?",
        ),
        (
            given("", &[("ROOMCAST_TELEMETRY__LOGS", "info")], &[]),
            "the environment variable ROOMCAST_TELEMETRY__LOGS: telemetry.logs: there is no such key; did you mean `telemetry.log`?",
        ),
        (
            given("", &[], &[("connections.zzz", "1")]),
            "--set connections.zzz: connections.zzz: there is no such key; known here: connections_max, per_user_max, per_address_max",
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(given.problems(), [expected]);
    }
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_origin() {
    let cases = [
        (
            given("[connections]\nper_user_max = -1", &[], &[]),
            "connections.per_user_max",
        ),
        (
            given("[connections]\nper_user_max = \"many\"", &[], &[]),
            "connections.per_user_max",
        ),
        (given("connections = 3", &[], &[]), "connections"),
        (given("[telemetry]\nlog = \"info,=,\"", &[], &[]), "telemetry.log"),
        (
            given("[telemetry]\nsample_ratio = 1.5", &[], &[]),
            "telemetry.sample_ratio",
        ),
        (
            given("[telemetry]\nlog_format = \"xml\"", &[], &[]),
            "telemetry.log_format",
        ),
        (
            given("[nats]\nstream_bytes_max = \"70 KiB\"", &[], &[]),
            "nats.stream_bytes_max",
        ),
    ];
    for (given, key) in cases {
        let problems = given.problems();
        assert!(
            problems.len() == 1 && problems[0].contains(&format!("{key}: ")),
            "{key}: {problems:?}"
        );
    }
}

#[test]
fn zero_is_refused_at_the_setting_itself() {
    let toml = "[session]\nheartbeat_interval = \"0s\"\ncommands_waiting_max = 0\njoin_rate = { per_second = 0, burst = 1 }\n\
                [socket]\noutbox_bytes_max = 0\n[grpc]\nstreams_max = 0";
    let problems = given(toml, &[], &[]).problems();
    let expected = [
        ("session.heartbeat_interval", "must be longer than zero"),
        ("session.commands_waiting_max", "must be at least 1"),
        ("session.join_rate.per_second", "must be at least 1"),
        ("socket.outbox_bytes_max", "must be at least 1"),
        ("grpc.streams_max", "must be at least 1"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (key, message) in expected {
        let line = problems.iter().find(|problem| problem.contains(&format!("{key}: ")));
        let line = line.unwrap_or_else(|| panic!("{key}: {problems:?}"));
        assert!(line.contains("FILE") && line.contains(message), "{line}");
    }
}

#[test]
fn a_bound_that_would_be_raised_is_refused() {
    let given = given("[client]\nhead_bytes_max = \"4 KiB\"", &[], &[]);
    let error = given.config().gateway(true).unwrap_err().to_string();
    assert!(error.starts_with("client.head_bytes_max: "), "{error}");
}

#[test]
fn an_origin_no_browser_sends_is_refused_with_the_right_spelling() {
    for (section, key) in [("client", "origins"), ("grpc", "web_origins")] {
        let problem = |origin: &str| {
            let given = given(
                &format!("[{section}]\n{key} = [\"https://good.example\", \"{origin}\"]"),
                &[],
                &[],
            );
            let error = given.config().gateway(true).err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(problem("https://app.example:8443"), "");
        for origin in [
            "https://app.example/",
            "https://app.example:443",
            " https://app.example",
            "https://App.example",
        ] {
            let problem = problem(origin);
            assert!(problem.starts_with(&format!("{section}.{key}.1: ")), "{problem}");
            assert!(problem.contains("browsers send `https://app.example`"), "{problem}");
        }
        for origin in ["*", "null", "app.example"] {
            assert!(problem(origin).contains("is not scheme://host[:port]"), "{origin}");
        }
    }
}

/// Stands for a secret, wherever it was written.
const SECRET: &str = "canary-9b41";

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_place_and_without_the_line() {
    let cases = [
        ("[connections]\nper_user_max = ", 2),
        (&format!("[[grpc.services]]\nname = 'app'\ntoken = \"{SECRET}"), 3),
        (&format!("[[grpc.services]]\ntoken = {SECRET}"), 2),
        (&format!("a = 1\n\ntoken = '{SECRET}' '{SECRET}'"), 3),
        (&format!("token = \"{SECRET}\\q\""), 1),
    ];
    for (toml, line) in cases {
        let problems = given(toml, &[], &[]).problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("FILE: no TOML at line {line}, column ")),
            "{problems:?}"
        );
        assert!(
            !problems[0].contains(SECRET) && !problems[0].contains('\n'),
            "{problems:?}"
        );
    }
}

#[test]
fn no_problem_repeats_a_value() {
    let text = format!("'{SECRET}'");
    let everywhere = [
        "grpc.services=SECRET",
        "grpc.services=[{name='app',scopes=['read'],token=[SECRET]}]",
        "grpc.services=[{name='app',scopes=[SECRET]}]",
        "grpc.services=[{name='app',scopes=['read'],token_sha256=SECRET}]",
        "auth.issuers=[{keys=[{algorithm=SECRET}]}]",
        "auth.issuers=[{keys=SECRET}]",
        "auth.leeway=SECRET",
        "client.listen=SECRET",
        "connections.per_user_max=SECRET",
        "history.bytes_max=SECRET",
        "nats={servers=['nats://roomcast:SECRET@127.0.0.1:4222']}",
        "nats={servers=SECRET}",
        "telemetry.log_format=SECRET",
        "telemetry.sample_ratio=SECRET",
        "telemetry=SECRET",
    ];
    for setting in everywhere {
        let inside = setting.contains(":SECRET@");
        let setting = setting
            .replace("SECRET", if inside { SECRET } else { &text })
            .replace('\'', "\"");
        let (key, value) = setting.split_once('=').unwrap();
        let variable = format!("ROOMCAST_{}", key.to_uppercase().replace('.', "__"));
        for given in [given("", &[], &[(key, value)]), given("", &[(&variable, value)], &[])] {
            if variable == "ROOMCAST_NATS" || variable == "ROOMCAST_TELEMETRY" {
                // A variable without a level is no setting.
                continue;
            }
            let problems = given.all_problems();
            assert!(!problems.is_empty(), "{setting}");
            assert!(!problems.concat().contains(SECRET), "{problems:?}");
        }
        let problems = given("", &[], &[(key, value)]).all_problems();
        assert!(
            !problems.is_empty() && !problems.concat().contains(SECRET),
            "{problems:?}"
        );
    }
}

#[test]
fn a_home_room_that_no_client_joins_is_a_warning() {
    const ISSUER: &str = "[[auth.issuers]]\nissuer = 'https://id.example.com'\n";
    let warnings = |homes: &str, auto_join: &str, claims: &str| {
        let toml = format!("[grpc]\n{homes}\n[policy]\nauto_join = {auto_join}\n{ISSUER}{claims}");
        let warnings = given(&toml, &[], &[]).config().warnings();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (user, tenant) = ("user_room = 'user:{user}'", "tenant_room = 'tenant:{tenant}'");
    let named = "claims = { user = 'uid', tenant = 'org' }";
    for (homes, auto_join, claims) in [
        ("", "['lobby']", ""),
        (user, "['user:{sub}']", ""),
        (user, "['lobby', 'user:{uid}']", named),
        ("user_room = 'user:{user*}'", "['user:{sub*}']", ""),
        (tenant, "['tenant:default']", ""),
        (tenant, "['tenant:{org}']", named),
        // Clients join by a command, or a backend adds them.
        (user, "[]", ""),
    ] {
        assert_eq!(warnings(homes, auto_join, claims), [""; 0], "{homes} {auto_join}");
    }
    for (homes, auto_join, claims, expected) in [
        (
            user,
            "['users:{sub}']",
            "",
            "grpc.user_room: clients of the issuer `https://id.example.com` do not join this room: `user:{sub}` is not in policy.auto_join",
        ),
        (
            user,
            "['user:{sub}']",
            named,
            "grpc.user_room: clients of the issuer `https://id.example.com` do not join this room: `user:{uid}` is not in policy.auto_join",
        ),
        (
            tenant,
            "['user:{sub}']",
            "",
            "grpc.tenant_room: clients of the issuer `https://id.example.com` do not join this room: `tenant:default` is not in policy.auto_join",
        ),
    ] {
        assert_eq!(warnings(homes, auto_join, claims), [expected], "{homes} {auto_join}");
    }
}

#[test]
fn everything_that_is_wrong_is_found_at_once() {
    let toml = "
        [connections]
        per_usr_max = 1
        per_address_max = 'many'
        connections_max = 0

        [nats]
        servers = []
        replicas = 2
        partitions = 0

        [client]
        origins = ['https://app.example.com/', 'https://app.example.com', 'app']

        [[grpc.services]]
        nam = 'app'

        [[grpc.services]]
        name = 'b'
        scopes = ['red']
        token = 'short'

        [[auth.issuers]]
        issuer = 'https://id.example.com'
        audiences = ['app']
        keys = [{ algorithm = 'HS255', secret = 'short' }, { algorithm = 'HS256', secret = 'short' }]

        [policy]
        auto_join = ['user:{']

        [[policy.rules]]
        name = 'a'
        room = 'a:{id}'
        allow = ['join']
        when = 'room.i == 1'

        [[policy.rules]]
        name = 'b'
        room = 'b:{'
        allow = ['join']
    ";
    let problems = given(toml, &[("ROOMCAST_PRESENCE__LISTED_MAX", "-1")], &[]).all_problems();
    let keys: std::collections::BTreeSet<_> = problems.iter().map(|problem| key(problem)).collect();
    let expected = [
        "auth.issuers.0.keys.0.algorithm",
        "client.origins.0",
        "client.origins.2",
        "connections.connections_max",
        "connections.per_address_max",
        "connections.per_usr_max",
        "grpc.services.0.nam",
        "grpc.services.0.name",
        "grpc.services.0.scopes",
        "grpc.services.0.token",
        "grpc.services.1.scopes.0",
        "grpc.services.1.token",
        "nats.partitions",
        "nats.replicas",
        "nats.servers",
        "policy.auto_join.0",
        "policy.rules.0",
        "policy.rules.1",
        "presence.listed_max",
    ];
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), expected, "{problems:#?}");
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

/// The key that a problem names, behind its origin.
fn key(problem: &str) -> &str {
    let mut parts = problem
        .split(": ")
        .skip_while(|part| part.contains(['/', ' ']) || *part == "FILE");
    parts.next().unwrap()
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let sources = Sources {
        file: Some("/does/not/exist.toml".into()),
        ..Sources::default()
    };
    assert!(matches!(Config::load(&sources), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn a_configuration_is_read_back_as_it_is_printed() {
    let printed = given("", &[("HOSTNAME", "n1")], &[]).config().to_toml();
    assert!(printed.contains("id = \"n1\""), "{printed}");
    assert_eq!(given(&printed, &[], &[]).config().to_toml(), printed);
}

#[test]
fn nats_settings_that_cannot_work_are_named() {
    let secret = NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hush\n").unwrap();
    let secret = secret.path().display();
    let cases = [
        ("servers = []", "nats.servers: names no server"),
        (
            "deployment = 'a.b'",
            "nats.deployment: a name of 1 to 32 of A-Z a-z 0-9 - _ is needed",
        ),
        ("replicas = 2", "nats.replicas: is not 1, 3 or 5"),
        ("partitions = 0", "nats.partitions: is not between 1 and 1024"),
        ("user = 'ada'", "nats.user: and nats.password_file need each other"),
        (
            &format!("token_file = '{secret}'\nnkey_file = '{secret}'"),
            "nats: shows who the node is in more than one way; keep one of creds_file, nkey_file, user and token_file",
        ),
        (
            "[nats.tls]\nkey_file = 'key.pem'",
            "nats.tls.certificate_file: and nats.tls.key_file need each other",
        ),
    ];
    for (settings, expected) in cases {
        let servers = if settings.starts_with("servers") {
            ""
        } else {
            "servers = ['nats://127.0.0.1:4222']\n"
        };
        let given = given(&format!("[nats]\n{servers}{settings}\n"), &[], &[]);
        let error = given.config().gateway(false).unwrap_err();
        assert_eq!(error.to_string().trim(), expected, "{settings}");
    }
}

#[test]
fn a_node_without_the_section_is_alone_and_one_with_it_is_not() {
    assert!(given("", &[], &[]).config().gateway(false).unwrap().nats.is_none());
    let environment = [("ROOMCAST_NATS__SERVERS", "[\"nats://nats:4222\"]")];
    let nats = given("", &environment, &[]).config().gateway(false).unwrap().nats;
    assert_eq!(nats.unwrap().servers, ["nats://nats:4222"]);
}

#[test]
fn settings_of_event_streams_that_cannot_work_are_named() {
    let toml = "
        [client]
        origins = ['*']
        [sse]
        cookie = 'a b'
        event_prefix = ''
        retry = '60d'
    ";
    assert_eq!(
        given(toml, &[], &[]).problems(),
        [
            "sse.event_prefix: has 1 to 32 bytes and no control characters",
            "sse.retry: must be at most 49 days",
            "sse.cookie: is not the name of a cookie",
            "sse.cookie: needs a list in `client.origins`: with `*` any page could use a visitor's cookie",
        ]
    );
    let config = given("[sse]\ncookie = 'session'\nretry = '1s'", &[], &[]).config();
    assert_eq!(config.sse.cookie.as_deref(), Some("session"));
}
