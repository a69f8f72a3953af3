// The Chromium of the system, without a window and without its talk at home.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

// Bounds every single wait; the page's own work takes milliseconds.
export const PATIENCE_MS = 15_000;

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = BROWSERS.find(existsSync);
if (!executablePath) {
  console.error("no Chromium found; run: make setup");
  process.exit(1);
}

// Without these, a browser talks to its maker at every start, which tests must not depend on.
const args = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// Chromium's sandbox refuses to run as root, which is who containers usually run as.
if (process.getuid?.() === 0) args.push("--no-sandbox");

/** Runs a story in a browser of its own, and prints what it showed; exit code 1 if it fails. */
export async function tell(story, shown) {
  const browser = await launch();
  let failure;
  try {
    await story(browser);
  } catch (error) {
    failure = error;
  }
  await browser.close();
  if (failure) {
    console.error(`browser: ${failure.stack}`);
    process.exit(1);
  }
  console.log(`browser: ${shown}`);
  // Servers of the story may still listen.
  process.exit(0);
}

export const launch = () => chromium.launch({ executablePath, args, timeout: 60_000 });
