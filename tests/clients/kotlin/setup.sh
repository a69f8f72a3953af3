#!/usr/bin/env bash
# Generates the Kotlin client and compiles it with the smoke test into target/; compilers come from Maven Central.

source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

stamp=target/.stamp
inputs=(pom.xml src/main/kotlin/Smoke.kt)
if done_before "$stamp" "${inputs[@]}" && [ -d target/classes ]; then exit 0; fi

rm -rf target
mvn --batch-mode --quiet -Dstyle.color=never --no-transfer-progress process-classes
done_now "$stamp" "${inputs[@]}"
