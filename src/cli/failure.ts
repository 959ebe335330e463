import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { socketPathOf } from '../client/endpoint.ts';
import { WorkloadApiError } from '../client/workload-api-error.ts';
import { isSignetError, messageOf, systemCode } from '../errors.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { CommandError, UsageError } from './usage-error.ts';

/** What the user reads when a command fails: what is wrong, what to do next, and the exit code. */
export interface Failure {
  readonly exit: ExitCode;
  readonly problem: string;
  readonly next: string | undefined;
}

/** @param target the endpoint that was talked to, as `parseEndpoint` returned it; undefined when none was. */
export async function explainFailure(error: unknown, target: string | undefined): Promise<Failure> {
  if (error instanceof UsageError) return { exit: EXIT.usage, problem: error.message, next: undefined };
  if (error instanceof CommandError) return { exit: EXIT.refused, problem: error.message, next: error.next };
  if (error instanceof WorkloadApiError) return explainStatus(error, target ?? 'the endpoint');
  if (isSignetError(error, 'invalid_endpoint')) return explainEndpoint(error.message);
  if (isSignetError(error, 'invalid_svid', 'invalid_token', 'invalid_spiffe_id') && target !== undefined) {
    return {
      exit: EXIT.refused,
      problem: `the answer of ${target} is not valid: ${error.message}`,
      next: 'nothing was used of it; see the log of the agent',
    };
  }
  return { exit: EXIT.refused, problem: messageOf(error), next: undefined };
}

function explainEndpoint(problem: string): Failure {
  return {
    exit: EXIT.usage,
    problem,
    next: 'name the agent\'s socket: --socket /run/signet/public/api.sock, or set SPIFFE_ENDPOINT_SOCKET',
  };
}

async function explainStatus(error: WorkloadApiError, target: string): Promise<Failure> {
  switch (error.code) {
    case 'no_identity':
      return noIdentity(error.message, target);
    case 'timed_out':
      return {
        exit: EXIT.unreachable,
        problem: `${target} did not answer in time`,
        next: 'allow more with --timeout 30s, or see whether the agent is stuck',
      };
    case 'unavailable':
      return explainUnavailable(error, target);
    case 'unimplemented':
      return {
        exit: EXIT.refused,
        problem: `${target} does not have this function`,
        next: 'the profile may be off there, or it is no Workload API',
      };
    case 'invalid_argument':
      return { exit: EXIT.refused, problem: `the agent refused the request: ${error.message}`, next: undefined };
    default:
      return {
        exit: EXIT.refused,
        problem: `the call failed with gRPC status ${error.status}: ${error.message}`,
        next: undefined,
      };
  }
}

function noIdentity(text: string, target: string): Failure {
  const uid = process.getuid?.();
  return {
    exit: EXIT.noIdentity,
    problem: `the agent at ${target} has no such identity for this process (uid ${uid}, pid ${process.pid}): ${text}`,
    next: `add an entry whose selectors this process has, for example unix:uid:${uid}, and try again`,
  };
}

async function explainUnavailable(error: WorkloadApiError, target: string): Promise<Failure> {
  const path = socketPathOf(target);
  const code = path === undefined ? undefined : await tryConnect(path);
  const [problem, next] = path === undefined || code === undefined ? notServing(error, target) : explainSocket(path, code);
  return { exit: EXIT.unreachable, problem, next };
}

function notServing(error: WorkloadApiError, target: string): [string, string] {
  // grpc-js wraps the system's own words in two sentences of its own.
  const [, words = error.message] = /Last error: (?:Error: )?(.*?)\.? Resolution note:/.exec(error.message) ?? [];
  return [
    `${target} cannot be reached or does not serve now: ${words}`,
    'is the agent running and ready? "signet healthcheck" tells',
  ];
}

function explainSocket(path: string, code: string): [string, string] {
  switch (code) {
    case 'ENOENT':
      return [
        `there is no socket at ${path}`,
        'is the agent running? If it serves elsewhere, name its socket with --socket or SPIFFE_ENDPOINT_SOCKET',
      ];
    case 'ECONNREFUSED':
    case 'ENOTSOCK':
      return isSocket(path)
        ? [`nobody listens at ${path}: its agent has ended`, 'start the agent again']
        : [`${path} is not a socket`, 'name the agent\'s socket with --socket or SPIFFE_ENDPOINT_SOCKET'];
    case 'EACCES':
    case 'EPERM':
      return [
        `the kernel denies user ${process.getuid?.()} access to ${path} (${code})`,
        'the socket has to be writable for this user, and each directory above it searchable (mode o+x)',
      ];
    case 'ENAMETOOLONG':
    case 'EINVAL':
      return [`${path} is too long for a socket`, 'the kernel allows 107 bytes'];
    default:
      return [`${path} cannot be connected to: ${code}`, 'see the log of the agent'];
  }
}

/** The kernel's own word on why a socket cannot be connected to, or undefined when it can. */
function tryConnect(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error) => resolve(systemCode(error) ?? 'unknown'));
  });
}

function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() ?? false;
}
