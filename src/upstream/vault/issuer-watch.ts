import { IssuerWatch as UpstreamIssuerWatch, type IssuerWatchOptions as CommonOptions, type IssuerWatchTools as CommonTools } from '../wire/issuer-watch.ts';
import { readIssuers, type OpenReader } from './issuers.ts';

export interface IssuerWatchOptions extends CommonOptions {
  /** Where the PKI engine is mounted. */
  readonly mount: string;
  /** What signs: `default`, or the name or ID of an issuer. */
  readonly issuer: string;
}

export interface IssuerWatchTools extends CommonTools {
  readonly client: OpenReader & { onReturn(listener: () => void): () => void };
}

/** Follows the issuers of a mount. */
export class IssuerWatch extends UpstreamIssuerWatch {
  /** Begins to look. */
  constructor(options: IssuerWatchOptions, tools: IssuerWatchTools) {
    const { mount, issuer } = options;
    const { client } = tools;
    const read = (signal: AbortSignal) => readIssuers(client, mount, issuer, signal);
    super({ where: `${mount} of Vault`, read, onReturn: (listener) => client.onReturn(listener) }, options, tools);
  }
}
