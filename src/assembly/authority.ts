import { join } from 'node:path';
import { createIntermediate } from '../authority/certificate.ts';
import { EmbeddedAuthority, type EmbeddedOptions } from '../authority/embedded.ts';
import { NodeJwtSigner, type JwtKeySource } from '../authority/jwt-signer.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../authority/node-authority.ts';
import { judgeCa } from '../authority/upstream-ca.ts';
import { NodeX509Signer, type IssuerSource } from '../authority/x509-signer.ts';
import type { Clock } from '../clock.ts';
import type { Config, FilesConfig } from '../config/config.ts';
import type { EventBus } from '../events.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { BundleSource, JwtSigner, X509Signer } from '../spiffe/signing.ts';
import { FilesUpstream } from '../upstream/files.ts';
import type { CaTools } from '../upstream/upstream.ts';

export interface AuthorityTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: EventBus;
}

/** Who signs for this node and whom its workloads believe, whichever kind it is. */
export interface Authority {
  readonly x509: X509Signer;
  readonly jwt: JwtSigner;
  readonly bundle: BundleSource;
  /** When what signs now ends, in milliseconds since the Unix epoch; a kind that is missing cannot sign, or has no end here. */
  ends(): { readonly x509?: number; readonly jwt?: number };
  /** When the CA above was last reached, and what fails; empty where there is none above. Milliseconds since the Unix epoch. */
  status?(): { readonly lastSuccess: number | undefined; readonly failing?: string };
  /** Calls `listener` when leaves have to be signed again soon, because their CA is not to be relied on any more. */
  onIssuerChange?(listener: (change: { readonly isReplaced: boolean }) => void): () => void;
  close(): Promise<void>;
}

/** The directory whose holder signs, one agent at a time. Not the private one itself: its lock is for the socket that is in it. */
export function stateDirectoryOf({ authority, dataDir, privateDir }: Config): string {
  return authority.type === 'embedded' ? dataDir : join(privateDir, 'authority');
}

/**
 * Judges what is there, without changing anything: an agent that could not start must not take the socket from one that runs.
 *
 * @throws SignetError `state_refused`
 */
export async function checkAuthority(config: Config, tools: AuthorityTools): Promise<void> {
  const { files } = config.authority;
  if (files === undefined) return EmbeddedAuthority.check(embeddedOptions(config));
  // Keys from before a restart are enough to go on with, whatever has become of the files.
  if (NodeAuthority.check(nodeOptions(config), tools.clock.now())) return;
  await FilesUpstream.check({ trustDomain: config.trustDomain, files }, { clock: tools.clock, ca: caTools(tools.random) });
}

/** @throws SignetError `state_refused`, `state_unwritable`, `profile_violation` */
export async function openAuthority(config: Config, tools: AuthorityTools): Promise<Authority> {
  const { files } = config.authority;
  if (files !== undefined) return openUnderFiles(config, files, tools);
  const embedded = await EmbeddedAuthority.open(embeddedOptions(config), tools);
  return { ...signersOn(embedded, config, tools), close: () => embedded.close() };
}

/** Keys that are on this node. */
function signersOn(source: IssuerSource & JwtKeySource & BundleSource, { trustDomain, jwt }: Config, { clock, random }: AuthorityTools) {
  const notAfterOf = (read: () => { readonly notAfter: number }): number | undefined => {
    try {
      return read().notAfter;
    } catch {
      // There is none now, which its absence says.
      return undefined;
    }
  };
  return {
    x509: new NodeX509Signer(source, trustDomain, clock, random),
    jwt: new NodeJwtSigner(source, trustDomain, jwt.issuer, clock),
    bundle: source,
    ends: () => definedOf({ x509: notAfterOf(() => source.issuer()), jwt: notAfterOf(() => source.jwtKey()) }),
  };
}

function definedOf<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function caTools(random: Random): CaTools {
  return { judgeCa, signNodeCa: (ca, request) => createIntermediate(ca, request, random) };
}

async function openUnderFiles(config: Config, files: FilesConfig, tools: AuthorityTools): Promise<Authority> {
  const upstream = await FilesUpstream.open({ trustDomain: config.trustDomain, files }, { ...tools, ca: caTools(tools.random) });
  try {
    const node = await NodeAuthority.open(nodeOptions(config), { ...tools, upstream });
    return {
      ...signersOn(node, config, tools),
      onIssuerChange: (listener) => node.onIssuerChange(listener),
      status: () => node.status(),
      close: async () => {
        await node.close();
        await upstream.close();
      },
    };
  } catch (error) {
    await upstream.close();
    throw error;
  }
}

function embeddedOptions({ trustDomain, dataDir, authority }: Config): EmbeddedOptions {
  return { trustDomain, dataDir, ttlMs: authority.ttlMs };
}

function nodeOptions(config: Config): NodeAuthorityOptions {
  const { trustDomain, authority } = config;
  return { trustDomain, privateDir: stateDirectoryOf(config), ttlMs: authority.ttlMs, nameConstraint: authority.nameConstraint };
}
