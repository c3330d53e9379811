// SPDX-License-Identifier: Apache-2.0
// FluentServer of @fluent-org/logger: writes each entry as a line of JSON, [tag, time, record].
// node fluent_server.js FOLDER OPTIONS; FOLDER has its node_modules, OPTIONS are FluentServer's as JSON.
"use strict";
const fs = require("fs");
const { FluentServer } = require(`${process.argv[2]}/node_modules/@fluent-org/logger`);
const options = JSON.parse(process.argv[3]);
for (const name of options.tlsOptions ? ["cert", "key"] : [])
    options.tlsOptions[name] = fs.readFileSync(options.tlsOptions[name]);
// JavaScript prints 9223372036854771712 as ...772000, though the number itself is right.
const exact = (_, value) =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) ? { int: `${BigInt(value)}` } : value;
const server = new FluentServer(options);
server.on("entry", (tag, time, record) =>
    fs.writeSync(1, `${JSON.stringify([tag, `${time.epoch}.${String(time.nano).padStart(9, "0")}`, record], exact)}\n`));
server.listen();
