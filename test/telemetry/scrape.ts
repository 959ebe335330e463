import { request, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** One request over a connection of its own. */
export function http({ host, port }: Address, path: string, method = 'GET', body?: string, headers: OutgoingHttpHeaders = {}): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, path, method, headers, agent: false, signal: AbortSignal.timeout(10_000) }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

/** What a scrape told, by the name with its labels as they stand: `signet_ready`, `signet_refusals_total{reason="no_identity"}`. */
export class Scrape {
  readonly text: string;
  readonly #samples = new Map<string, number>();

  constructor(text: string) {
    this.text = text;
    for (const line of text.split('\n')) {
      const space = line.lastIndexOf(' ');
      if (line !== '' && !line.startsWith('#')) this.#samples.set(line.slice(0, space), Number(line.slice(space + 1)));
    }
  }

  /** The value, or undefined for one that is not shown. */
  of(sample: string): number | undefined {
    return this.#samples.get(sample);
  }

  /** Every sample's name without its labels: with `_bucket`, `_sum` and `_count` for histograms. */
  get names(): ReadonlySet<string> {
    return new Set([...this.#samples.keys()].map((sample) => sample.replace(/\{.*$/, '')));
  }

  /** The names that are declared, whether they have samples or not. */
  get families(): ReadonlySet<string> {
    return new Set([...this.text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name));
  }
}

export async function scrape(address: Address): Promise<Scrape> {
  const { status, body } = await http(address, '/metrics');
  if (status !== 200) throw new Error(`/metrics answered ${status}: ${body}`);
  return new Scrape(body);
}
