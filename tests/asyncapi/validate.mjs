// Validates AsyncAPI documents with the specification's own parser.
//
//   node tests/asyncapi/validate.mjs FILE..
//
// Exit code 0 when no file has an error or a warning. Hints (severity 2 and 3) are matters of taste and stay silent.

import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const SEVERITY = ["error", "warning"];

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node tests/asyncapi/validate.mjs FILE..");
  process.exit(2);
}

let found = 0;
for (const file of files) {
  const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file });
  const serious = diagnostics.filter(({ severity }) => severity < SEVERITY.length);
  for (const { severity, range, message, path } of serious) {
    console.error(`${file}:${range.start.line + 1}: ${SEVERITY[severity]}: ${message} (${path.join(".")})`);
  }
  if (!document && serious.length === 0) console.error(`${file}: not an AsyncAPI document`);
  found += serious.length + (document ? 0 : 1);
  if (document) {
    const messages = document.allMessages().all().length;
    console.log(`${file}: AsyncAPI ${document.version()}, ${messages} messages`);
  }
}
process.exit(found > 0 ? 1 : 0);
