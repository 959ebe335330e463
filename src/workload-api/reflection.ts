import type { Server, ServerDuplexStream, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';

type Exchange = ServerDuplexStream<object, object>;
type Handler = (stream: Exchange) => void;

/** Server reflection, v1 and v1alpha (Workload Endpoint §6: SHOULD), for what `packages` describe. */
export class Reflection {
  /** What the library would add to a server; it reads its files anew each time, so it is asked once. */
  readonly #services: readonly (readonly [ServiceDefinition, UntypedServiceImplementation])[];

  constructor(packages: PackageDefinition) {
    const unpackaged = new Set(Object.keys(packages).filter((name) => !name.includes('.')));
    const services: [ServiceDefinition, UntypedServiceImplementation][] = [];
    new ReflectionService(packages).addToServer({
      addService: (definition, implementation) => {
        const handlers = Object.entries(implementation).map(([name, handler]) => [name, oneAtATime(handler as Handler, unpackaged)]);
        services.push([definition, Object.fromEntries(handlers)]);
      },
    });
    this.#services = services;
  }

  addToServer(server: Server): void {
    for (const [definition, handlers] of this.#services) server.addService(definition, handlers);
  }
}

interface Question {
  readonly fileContainingSymbol?: string;
}

interface Answer {
  readonly originalRequest?: Question;
  readonly listServicesResponse?: { readonly service: readonly { readonly name: string }[] } | null;
}

/**
 * The library answers each question at once, whether or not the answers are read: a caller that only asks would fill the memory.
 * Here the next question is taken when the last answer is on its way. It also puts a dot before the name of whatever is in no
 * package, as the Workload API is; here it is asked with that dot and answers without.
 */
function oneAtATime(handler: Handler, unpackaged: ReadonlySet<string>): Handler {
  return (stream) => {
    let asked: Question = {};
    const write = (answer: Answer): boolean => stream.write(withoutDots({ ...answer, originalRequest: asked }), () => stream.resume());
    const facade = {
      on: (name: string, listener: (value: object) => void) =>
        stream.on(name, (value: object) => {
          if (name !== 'data') return listener(value);
          stream.pause();
          asked = value;
          listener(withDot(asked, unpackaged));
        }),
      write,
      end: () => stream.end(),
    };
    handler(facade as unknown as Exchange);
  };
}

function withDot(question: Question, unpackaged: ReadonlySet<string>): Question {
  const symbol = question.fileContainingSymbol ?? '';
  return unpackaged.has(symbol.split('.')[0] ?? '') ? { ...question, fileContainingSymbol: `.${symbol}` } : question;
}

function withoutDots(answer: Answer): Answer {
  const listed = answer.listServicesResponse;
  if (listed === undefined || listed === null) return answer;
  return { ...answer, listServicesResponse: { service: listed.service.map(({ name }) => ({ name: name.replace(/^\./, '') })) } };
}
