import { join } from 'node:path';
import { createIntermediate } from '../authority/certificate.ts';
import { EmbeddedAuthority, type EmbeddedOptions } from '../authority/embedded.ts';
import type { JwtKeySource } from '../authority/jwt-signer.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../authority/node-authority.ts';
import { judgeCa } from '../authority/upstream-ca.ts';
import type { IssuerSource } from '../authority/x509-signer.ts';
import type { Clock } from '../clock.ts';
import type { Config, FilesConfig } from '../config/config.ts';
import type { EventBus } from '../events.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import { FilesUpstream } from '../upstream/files.ts';
import type { CaTools } from '../upstream/upstream.ts';

export interface AuthorityTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: EventBus;
}

/** Who signs on this node, whichever kind it is. */
export interface Authority extends IssuerSource, JwtKeySource, BundleSource {
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
export function openAuthority(config: Config, tools: AuthorityTools): Promise<Authority> {
  const { files } = config.authority;
  return files === undefined ? EmbeddedAuthority.open(embeddedOptions(config), tools) : openUnderFiles(config, files, tools);
}

function caTools(random: Random): CaTools {
  return { judgeCa, signNodeCa: (ca, request) => createIntermediate(ca, request, random) };
}

async function openUnderFiles(config: Config, files: FilesConfig, tools: AuthorityTools): Promise<Authority> {
  const upstream = await FilesUpstream.open({ trustDomain: config.trustDomain, files }, { ...tools, ca: caTools(tools.random) });
  try {
    const node = await NodeAuthority.open(nodeOptions(config), { ...tools, upstream });
    return {
      ready: () => node.ready(),
      issuer: () => node.issuer(),
      intermediates: () => node.intermediates(),
      jwtKey: () => node.jwtKey(),
      current: () => node.current(),
      onChange: (listener) => node.onChange(listener),
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
