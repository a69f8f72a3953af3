// Opens the page of `roomcast dev` in a real, headless Chromium, twice, and uses it as two people would:
// the page connects and joins the lobby by itself; both join one room, each publishes, both see it once; then one loses the
// connection and misses nothing. A join that is refused leaves the room they work in selected.
//
//   node tests/browser/run.mjs PAGE_URL PAGE_URL [SCREENSHOT.png]
//
// The two addresses are those that `roomcast dev` prints for two users; the screenshot shows what the first one sees.
//
// Exit code 0: all of it was seen. Otherwise the first thing that was not is printed, with what the page said.
//
// What it expects of the page, by id:
//   #status    its data-state is "connected" once the gateway has answered
//   #room      text field      #join    button; afterwards #rooms holds the room's name
//   #message   text field      #publish button      #publish-room  the room it goes to
//   #notices   one child per line of the log
//   #events    one child per event received, holding its data
//   #drop      button: closes the socket as a lost network would; the page then comes back by itself and resumes
//
// The words that a newcomer steers by are asserted as a reader finds them, by role and label: see `labels`. All other wording
// and the layout may change freely.

import { launch, PATIENCE_MS } from "./chromium.mjs";

const [adasPage, bobsPage, screenshot] = process.argv.slice(2);
if (!bobsPage) {
  console.error("usage: node tests/browser/run.mjs PAGE_URL PAGE_URL [SCREENSHOT.png]");
  process.exit(2);
}

/** One person in front of the page, in a browser profile of their own. */
class Person {
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.console = [];
    page.on("console", (line) => this.console.push(`${line.type()}: ${line.text()}`));
    page.on("pageerror", (error) => this.console.push(`uncaught: ${error.message}`));
  }

  static async open(browser, name, pageUrl) {
    const context = await browser.newContext();
    context.setDefaultTimeout(PATIENCE_MS);
    const person = new Person(name, await context.newPage());
    await person.page.goto(pageUrl);
    return person;
  }

  async connected() {
    await this.page.locator("#status[data-state=connected]").waitFor();
  }

  async join(room) {
    await this.page.fill("#room", room);
    await this.page.click("#join");
  }

  /** Waits until this is the room to publish to, and it can be done. */
  async worksIn(room) {
    await this.page.locator("#publish:enabled").waitFor();
    await this.sees("#rooms [aria-pressed=true]", room);
    const to = await this.page.inputValue("#publish-room");
    if (to !== room) throw new Error(`${this.name} would publish to ${to}, not to ${room}`);
  }

  /** Waits for each control and heading by the words that name it. */
  async labels(room) {
    const { page } = this;
    const named = {
      "Drop connection": page.getByRole("button", { name: "Drop connection", exact: true }),
      Retention: page.getByRole("combobox", { name: "Retention", exact: true }),
      "To room": page.getByRole("combobox", { name: "To room", exact: true }),
      Members: page.getByRole("heading", { name: new RegExp(`^Members of ${room} \\(\\d+\\)$`) }),
      Log: page.getByRole("heading", { name: "Log", exact: true }),
      Connected: page.getByRole("status").filter({ hasText: /^Connected$/ }),
    };
    for (const [words, element] of Object.entries(named)) {
      await element.waitFor().catch(() => {
        throw new Error(`${this.name} finds nothing that is named ${words}`);
      });
    }
    const to = await named["To room"].inputValue();
    if (to !== room) throw new Error(`${this.name} reads that Publish goes to ${to}, not to ${room}`);
  }

  /** Disconnects, and waits until the page says so and offers nothing that needs a connection. */
  async disconnects() {
    await this.page.getByRole("button", { name: "Disconnect", exact: true }).click();
    await this.sees("#status", /^Not connected$/);
    await this.page.locator("#publish:disabled").waitFor();
    await this.page.locator("#drop:disabled").waitFor();
  }

  async publish(message) {
    await this.page.fill("#message", message);
    await this.page.click("#publish");
  }

  /** Waits until one such element holds the text, a string or a regular expression. */
  async sees(selector, text) {
    try {
      await this.page.locator(selector).filter({ hasText: text }).first().waitFor();
    } catch {
      const held = await this.page.locator(selector).allTextContents();
      throw new Error(`${this.name} never saw ${text} in ${selector}, which held: ${JSON.stringify(held)}`);
    }
  }

  async counts(text) {
    return this.page.locator("#events > *").filter({ hasText: text }).count();
  }
}

const browser = await launch();
const people = [];
let failure;
try {
  const ada = await Person.open(browser, "ada", adasPage);
  people.push(ada);
  const bob = await Person.open(browser, "bob", bobsPage);
  people.push(bob);

  const room = `browser-${process.pid}`;
  for (const person of people) {
    await person.connected();
    await person.worksIn("lobby");
    await person.labels("lobby");
    await person.join("private:plans");
    await person.sees("#notices > *", "private:plans: join refused: forbidden");
    await person.worksIn("lobby");
    await person.join(room);
    await person.worksIn(room);
  }

  await ada.publish("first message");
  for (const person of people) await person.sees("#events > *", "first message");
  await bob.publish("second message");
  for (const person of people) await person.sees("#events > *", "second message");

  // Whether the third comes while ada is away or just before: it must be there once.
  await ada.page.click("#drop");
  await bob.publish("third message");
  await ada.sees("#events > *", "third message");
  await ada.connected();

  // Seeing the last one proves that no duplicate of the others is still on its way.
  await bob.publish("last message");
  for (const person of people) {
    await person.sees("#events > *", "last message");
    for (const message of ["first message", "second message", "third message", "last message"]) {
      const count = await person.counts(message);
      if (count !== 1) throw new Error(`${person.name} sees "${message}" ${count} times`);
    }
    const uncaught = person.console.filter((line) => line.startsWith("uncaught"));
    if (uncaught.length > 0) throw new Error(`${person.name}'s page threw: ${uncaught[0]}`);
  }
  await bob.disconnects();
} catch (error) {
  failure = error;
}

if (screenshot && people.length > 0) {
  await people[0].page.screenshot({ path: screenshot, fullPage: true }).catch(() => {});
}
await browser.close();

if (failure) {
  console.error(`browser: ${failure.message}`);
  for (const person of people) for (const line of person.console) console.error(`  ${person.name}'s console: ${line}`);
  process.exit(1);
}
console.log("browser: connected, joined, published, lost the connection, missed nothing");
