import { Code } from './frames.ts';

/** What kind of fault: broken protocol, or a bound of this server. */
export type FaultKind = 'malformed' | 'excess';

/** The connection cannot go on (RFC 9113 §5.4.1): it is told GOAWAY with `code` and closed. */
export class ConnectionFault extends Error {
  readonly code: Code;
  readonly kind: FaultKind;

  /** @param what a sentence without its full stop, with the rule's place where there is one. */
  constructor(code: Code, what: string, kind: FaultKind = code === Code.enhanceYourCalm ? 'excess' : 'malformed') {
    super(what);
    this.name = 'ConnectionFault';
    this.code = code;
    this.kind = kind;
  }
}

/** One request cannot go on (RFC 9113 §5.4.2): its stream is told RST_STREAM with `code`. */
export class StreamFault extends Error {
  readonly code: Code;

  constructor(code: Code, what: string) {
    super(what);
    this.name = 'StreamFault';
    this.code = code;
  }
}
