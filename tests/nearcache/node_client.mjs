// What an application in JavaScript does with node-redis. Arguments: the URL, and the version of the protocol. Prints what it found.
import { createRequire } from "node:module";

const { createClient } = createRequire(process.cwd() + "/")("redis");
const [url, version] = process.argv.slice(2);
const client = createClient({ url, RESP: Number(version) });
await client.connect();
await client.set("greeting", "grüße");
const found = { get: await client.get("greeting"), nothing: await client.get("nothing") };
await client.hSet("user:1", { name: "Ada", born: "1815" });
found.hash = { ...(await client.hGetAll("user:1")) };
found.multi = await client.multi().incr("count").incr("count").exec();
found.many = await client.mGet(["greeting", "nothing", "count"]);
const messages = [];
const subscriber = client.duplicate();
await subscriber.connect();
const heard = new Promise((resolve) => subscriber.subscribe("news", (message) => resolve(messages.push(message))));
while (!messages.length) {
  await client.publish("news", "hello");
  await Promise.race([heard, new Promise((resolve) => setTimeout(resolve, 20))]);
}
found.heard = messages[0];
console.log(JSON.stringify(found));
await subscriber.close();
await client.close();
