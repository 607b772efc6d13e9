// The official JavaScript client, unchanged. Prints one JSON object of what it saw.
// node openai_client.mjs BASE_URL KEY FAILING_BASE_URL
import OpenAI from "openai";

const [base, key, failing] = process.argv.slice(2);
const options = { maxRetries: 0, timeout: 30_000 };
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, ...options });
const messages = [{ role: "user", content: "Say hello" }];
const ask = { model: "anything", messages, seed: 7, max_tokens: 24 };
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: {
        type: "object",
        properties: { city: { type: "string" }, days: { type: "integer" } },
        required: ["city", "days"],
        additionalProperties: false,
      },
    },
  },
];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, people: { type: "integer" } },
  required: ["name", "people"],
  additionalProperties: false,
};

async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, param: error.param, message: error.message };
  }
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
const seen = {};

seen.models = (await client.models.list()).data.map((model) => model.id);
seen.plain = await client.chat.completions.create(ask);
const streamed = await collect(
  await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }),
);
seen.streamed = { text: text(streamed), usage: streamed.at(-1).usage, choices: streamed.at(-1).choices };

const greedy = { ...ask, temperature: 0, max_tokens: 40 };
const whole = (await client.chat.completions.create(greedy)).choices[0].message.content;
const stop = whole.slice(7, 10);
const cut = (await client.chat.completions.create({ ...greedy, stop })).choices[0];
seen.stop = { whole, stop, cut: cut.message.content, reason: cut.finish_reason };

seen.json = JSON.parse(
  (
    await client.chat.completions.create({
      ...ask,
      max_tokens: 64,
      response_format: { type: "json_schema", json_schema: { name: "city", schema, strict: true } },
    })
  ).choices[0].message.content,
);

const called = await client.chat.completions
  .stream({ ...ask, max_tokens: 80, tools, tool_choice: "required" })
  .finalChatCompletion();
seen.tool = called.choices[0];

seen.errors = {
  bad: await refused(() => client.chat.completions.create({ ...ask, n: 2 })),
  missing: await refused(() => client.models.retrieve("gpt-9")),
  key: await refused(() => new OpenAI({ baseURL: `${base}/v1`, apiKey: "wrong", ...options }).models.list()),
};

const broken = new OpenAI({ baseURL: `${failing}/v1`, apiKey: "x", ...options });
seen.middle = await refused(async () => collect(await broken.chat.completions.create({ ...ask, stream: true })));

const closed = await client.chat.completions.create({
  ...ask,
  temperature: 0,
  max_tokens: 3000,
  stream: true,
  stream_options: { include_usage: true },
  session_id: "closed-js",
});
let count = 0;
for await (const _ of closed) if (++count === 5) break;
seen.closed = count;

console.log(JSON.stringify(seen));
