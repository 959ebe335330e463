import { isIPv4, isIPv6 } from 'node:net';
import { SignetError } from '../errors.ts';

/** The environment variable that names the endpoint when nothing else does (Workload Endpoint §4). */
export const ENDPOINT_VARIABLE = 'SPIFFE_ENDPOINT_SOCKET';

const UNIX_ALLOWED = 'allowed is unix:///<absolute path of the socket>, and nothing else';
const TCP_ALLOWED = 'allowed is tcp://<IP address>:<port>, and nothing else';
const CONTROL_CHARACTER = /[\u0000-\u001f\u007f]/;

/**
 * Reads the address of a Workload Endpoint by the rules of SPIFFE Workload Endpoint §4 and returns it as a target of grpc-js:
 * `unix:///run/agent.sock`, `ipv4:127.0.0.1:8000` or `ipv6:[::1]:8000`. No name is ever resolved.
 *
 * @throws SignetError `invalid_endpoint` naming what is allowed.
 */
export function parseEndpoint(uri: string): string {
  if (CONTROL_CHARACTER.test(uri)) throw invalid(uri, 'it has a control character');
  // RFC 3986 §3.1: a scheme is compared without regard to case.
  const [, scheme = '', rest = ''] = /^([a-zA-Z][a-zA-Z0-9+.-]*):(.*)$/.exec(uri) ?? [];
  switch (scheme.toLowerCase()) {
    case 'unix':
      return parseUnix(uri, rest);
    case 'tcp':
      return parseTcp(uri, rest);
    default:
      throw invalid(uri, `it must begin with unix: or tcp:, for example unix:///run/signet/public/api.sock`);
  }
}

/**
 * The endpoint to use: `explicit` when given, else the one in `SPIFFE_ENDPOINT_SOCKET`.
 *
 * @throws SignetError `invalid_endpoint` when there is neither, or when the one that counts is malformed.
 */
export function resolveEndpoint(explicit: string | undefined, env: Readonly<Record<string, string | undefined>>): string {
  if (explicit !== undefined) return parseEndpoint(explicit);
  const fromEnv = env[ENDPOINT_VARIABLE];
  if (fromEnv === undefined || fromEnv === '') {
    const example = 'unix:///run/signet/public/api.sock';
    const ways = `give one explicitly, or set ${ENDPOINT_VARIABLE} (for example ${example})`;
    throw new SignetError('invalid_endpoint', `no endpoint: ${ways}`);
  }
  try {
    return parseEndpoint(fromEnv);
  } catch (error) {
    if (error instanceof SignetError) throw new SignetError(error.code, `${ENDPOINT_VARIABLE}: ${error.message}`);
    throw error;
  }
}

/** The file system path of a target that `parseEndpoint` returned, or undefined when it is no Unix socket. */
export function socketPathOf(target: string): string | undefined {
  return target.startsWith('unix://') ? target.slice('unix://'.length) : undefined;
}

function parseUnix(uri: string, rest: string): string {
  if (/[?#]/.test(rest)) throw invalid(uri, UNIX_ALLOWED);
  const [, authority, path] = /^(?:\/\/([^/]*))?(.*)$/.exec(rest) ?? [];
  if (authority !== undefined && authority !== '') {
    throw invalid(uri, `"${authority}" stands where a host would; ${UNIX_ALLOWED} (three slashes)`);
  }
  if (path === undefined || !/^\/./.test(path)) throw invalid(uri, `its path is not absolute; ${UNIX_ALLOWED}`);
  return `unix://${decodePath(uri, path)}`;
}

function decodePath(uri: string, path: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    throw invalid(uri, 'it has a malformed percent-encoding');
  }
  if (CONTROL_CHARACTER.test(decoded)) throw invalid(uri, 'it has a control character');
  return decoded;
}

function parseTcp(uri: string, rest: string): string {
  const [, bracketed, plain, port = ''] = /^\/\/(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(rest) ?? [];
  const number = Number(port);
  if (port === '' || number < 1 || number > 65_535) throw invalid(uri, TCP_ALLOWED);
  if (bracketed !== undefined && isIPv6(bracketed)) return `ipv6:[${bracketed}]:${number}`;
  if (plain !== undefined && isIPv4(plain)) return `ipv4:${plain}:${number}`;
  throw invalid(uri, TCP_ALLOWED);
}

function invalid(uri: string, rule: string): SignetError {
  return new SignetError('invalid_endpoint', `${JSON.stringify(uri)} is not the address of a Workload API: ${rule}`);
}
