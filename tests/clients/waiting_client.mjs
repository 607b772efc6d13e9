// The official JavaScript client, unchanged, on a stream that falls silent. Prints what it read.
// node waiting_client.mjs BASE_URL BODY_AS_JSON
import OpenAI from "openai";

const [base, body] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "any", maxRetries: 0, timeout: 30_000 });
const chunks = [];
for await (const chunk of await client.chat.completions.create(JSON.parse(body))) chunks.push(chunk);
console.log(JSON.stringify(chunks));
