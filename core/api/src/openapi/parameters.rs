//! Query parameters of operations, with their types and what they mean.

/// One query parameter: its name, its type and its description.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = (
    "pretty",
    "string",
    "Accepted for compatibility; output is always compact.",
);
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "With All, everything happens but the change is not stored.",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "The name of whoever makes the change, noted in managedFields. It is required for apply patches and may have at most 128 printable characters.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore drops them, Warn drops them and warns, Strict refuses the request.",
);

/// Of requests that read one object.
pub(super) const GET: &[Parameter] = &[PRETTY];

/// Of requests that write an object.
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, PRETTY];

/// Of patches.
pub(super) const PATCH: &[Parameter] = &[
    DRY_RUN,
    FIELD_MANAGER,
    FIELD_VALIDATION,
    (
        "force",
        "boolean",
        "Lets an apply patch take over fields that others own. Not allowed for other patches.",
    ),
    PRETTY,
];

/// Of deletions.
pub(super) const DELETE: &[Parameter] = &[
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds before the object is deleted. Zero means at once; absent means the default of the kind.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy. Whether dependents lose their owner instead of being deleted.",
    ),
    PRETTY,
    (
        "propagationPolicy",
        "string",
        "Whether and when dependents are deleted: Orphan leaves them, Background deletes them afterwards, Foreground before the object.",
    ),
];

/// Of lists and watches.
pub(super) const LIST: &[Parameter] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "Asks for watch events of type BOOKMARK.",
    ),
    (
        "continue",
        "string",
        "Goes on with a list in chunks, where the token of the chunk before says.",
    ),
    (
        "fieldSelector",
        "string",
        "Restricts the objects by their fields. Everything if empty.",
    ),
    (
        "labelSelector",
        "string",
        "Restricts the objects by their labels. Everything if empty.",
    ),
    (
        "limit",
        "integer",
        "The most objects of one answer; if there are more, it carries a continue token.",
    ),
    PRETTY,
    (
        "resourceVersion",
        "string",
        "The version that a list must have, or from which a watch starts.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant for lists: Exact or NotOlderThan.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Begins a watch with the objects that there are, followed by a bookmark.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "Limits the duration of the call.",
    ),
    (
        "watch",
        "boolean",
        "Watches for changes instead of listing.",
    ),
];

const CONTAINER: Parameter = (
    "container",
    "string",
    "The container. May be left out if the pod has only one.",
);
const STDERR: Parameter = ("stderr", "boolean", "Redirects standard error.");
const STDIN: Parameter = ("stdin", "boolean", "Redirects standard input.");
const STDOUT: Parameter = ("stdout", "boolean", "Redirects standard output.");
const TTY: Parameter = ("tty", "boolean", "Gives the process a terminal.");

const EXEC: &[Parameter] = &[
    ("command", "string", "The command, as a list; no shell."),
    CONTAINER,
    STDERR,
    STDIN,
    STDOUT,
    TTY,
];
const ATTACH: &[Parameter] = &[CONTAINER, STDERR, STDIN, STDOUT, TTY];
const PORT_FORWARD: &[Parameter] = &[("ports", "integer", "The ports to forward, for WebSocket.")];
const PROXY: &[Parameter] = &[(
    "path",
    "string",
    "The path of the request that is passed on.",
)];
const LOG: &[Parameter] = &[
    CONTAINER,
    ("follow", "boolean", "Goes on with what is written later."),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Accepts any certificate of the node.",
    ),
    ("limitBytes", "integer", "Ends the log after so many bytes."),
    PRETTY,
    (
        "previous",
        "boolean",
        "The log of the container before its last restart.",
    ),
    (
        "sinceSeconds",
        "integer",
        "Leaves out what is older than so many seconds.",
    ),
    ("stream", "string", "Which output: All, Stdout or Stderr."),
    ("tailLines", "integer", "The last lines only."),
    ("timestamps", "boolean", "Begins each line with its time."),
];

/// Those of a subresource that is no object.
pub(super) fn of_connection(subresource: &str) -> &'static [Parameter] {
    match subresource {
        "exec" => EXEC,
        "attach" => ATTACH,
        "portforward" => PORT_FORWARD,
        "proxy" => PROXY,
        "log" => LOG,
        _ => &[],
    }
}
