/**
 * Node's HTTP/1.1. Imported by name it would also load undici, a browser's WebSocket and more, because an import reads every export and
 * these are loaded when they are read: 3 MB of every agent, and a tenth of its start.
 */
export const { Agent, createServer, request } = process.getBuiltinModule('node:http');
