// An OPC UA server on node-opcua: `node opcua_peer.js PKI_FOLDER`, with NODE_PATH where node-opcua is installed.
//
// Nodes ns=1;s=counter (UInt32, +1 every 50 ms), ns=1;s=logged (the same with a history), ns=1;s=level (Double 21.5). None, and Sign &
// Encrypt with Basic256Sha256, Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss; anonymous, or user `gauge` with password `s3cret`.
// It prints `ready PORT CERTIFICATE`. On standard input: `drop` cuts every connection; end of file ends it.
"use strict";
const net = require("net");
const path = require("path");
const readline = require("readline");
const {
    DataType, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes, Variant,
} = require("node-opcua");

const STEP_MS = 50;
const HISTORY_VALUES = 100000;

// Every socket that the server takes, so that they can be cut as a switch does: no closing message.
const sockets = new Set();
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
    this.on("connection", (socket) => {
        sockets.add(socket);
        socket.on("close", () => sockets.delete(socket));
    });
    return listen.apply(this, args);
};

function addNodes(server) {
    const space = server.engine.addressSpace;
    const own = space.getOwnNamespace();
    const device = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Gauges" });
    const add = (name, dataType, value) =>
        own.addVariable({
            componentOf: device, browseName: name, nodeId: `s=${name}`, dataType, minimumSamplingInterval: 10,
            value: new Variant({ dataType, value }),
        });
    const counter = add("counter", "UInt32", 0);
    const logged = add("logged", "UInt32", 0);
    add("level", "Double", 21.5);
    space.installHistoricalDataNode(logged, { maxOnlineValues: HISTORY_VALUES });
    const begin = Date.now();
    let told = 0;
    return setInterval(() => {
        const due = Math.floor((Date.now() - begin) / STEP_MS);
        while (told < due) {
            told += 1;
            for (const node of [counter, logged]) {
                node.setValueFromSource(
                    new Variant({ dataType: DataType.UInt32, value: told }), StatusCodes.Good, new Date(begin + told * STEP_MS));
            }
        }
    }, STEP_MS / 2);
}

async function main() {
    const pki = path.resolve(process.argv[2]);
    const certificates = new OPCUACertificateManager({ rootFolder: pki, automaticallyAcceptUnknownCertificate: true });
    await certificates.initialize();
    const server = new OPCUAServer({
        port: 0, hostname: "127.0.0.1", host: "127.0.0.1", serverCertificateManager: certificates, maxConnectionsPerEndpoint: 1000,
        securityModes: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
        securityPolicies: [
            SecurityPolicy.None, SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep,
            SecurityPolicy.Aes256_Sha256_RsaPss,
        ],
        userManager: { isValidUser: (name, word) => name === "gauge" && word === "s3cret" },
        serverCapabilities: { maxSessions: 5000, maxSubscriptions: 5000, maxSubscriptionsPerSession: 20 },
    });
    await server.initialize();
    const ticking = addNodes(server);
    await server.start();
    console.log(`ready ${server.endpoints[0].port} ${server.certificateFile}`);
    const input = readline.createInterface({ input: process.stdin });
    input.on("line", (line) => {
        if (line === "drop") for (const socket of sockets) socket.destroy();
    });
    input.on("close", () => {
        clearInterval(ticking);
        for (const socket of sockets) socket.destroy();
        process.exit(0);
    });
}

main().catch((error) => {
    console.error(`opcua_peer: ${error.message}`);
    process.exit(1);
});
