//! POST of a collection.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use portolan_api::{Status, meta};
use serde_json::Value;

use super::owners::{Manager, Owners};
use super::{Call, admit, decode, read, write_error};
use crate::allocator::Reservation;
use crate::answer::{self, Answer, Failure};
use crate::context::{Context, Resource};
use crate::custom;
use crate::store::{Change, Condition, Hold, Stored, Write, WriteError};

/// Letters that make no words and are not mistaken for one another
/// (apimachinery `util/rand`).
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;
/// How often another generated name is tried.
const NAME_TRIES: usize = 8;
/// How often another address is tried.
const ADDRESS_TRIES: usize = 8;

pub(super) async fn create(call: &Call) -> Result<Answer, Failure> {
    let (object, mut warnings) = decode::object(call)?;
    let dry_run = call.dry_run()?;
    let resource = &call.asked.resource;
    if !meta::resource_version(&object).is_empty() {
        return Err(answer::unknown_error(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let manager = Manager::of(call)?;
    let owners = Owners::Record(&manager);
    let created = create_as(&call.context, resource, object, dry_run, owners).await?;
    let value = resource.value(&created);
    warnings.extend(resource.kind.warn(&value, None));
    let mut answer = read::one(call, StatusCode::CREATED, &created)?;
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

/// Create an object of the server's own.
pub(crate) async fn create_object(
    context: &Context,
    resource: &Resource,
    object: Value,
    dry_run: bool,
) -> Result<Arc<Stored>, Failure> {
    let server = Manager::server();
    create_as(context, resource, object, dry_run, Owners::Record(&server)).await
}

/// Create a decoded object. With `dry_run` everything but the write happens.
pub(super) async fn create_as(
    context: &Context,
    resource: &Resource,
    object: Value,
    dry_run: bool,
    owners: Owners<'_>,
) -> Result<Arc<Stored>, Failure> {
    let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
    let mut names = if generated { NAME_TRIES } else { 1 };
    let mut races = ADDRESS_TRIES;
    loop {
        let mut object = object.clone();
        if generated {
            let name = generate(meta::generate_name(&object));
            meta::set_name(&mut object, &name);
        }
        match attempt(context, resource, object, dry_run, owners).await {
            Err(failure) if failure.reason == "AlreadyExists" && names > 1 => names -= 1,
            // Somebody made an IPAddress of the address that was picked.
            Err(failure) if failure.reason == "Conflict" && races > 0 => races -= 1,
            other => return other,
        }
    }
}

async fn attempt(
    context: &Context,
    resource: &Resource,
    object: Value,
    dry_run: bool,
    owners: Owners<'_>,
) -> Result<Arc<Stored>, Failure> {
    let kind = &resource.kind;
    let (object, reservation) = prepare(context, resource, object, dry_run, owners)?;
    let name = meta::name(&object).to_owned();
    let namespace = meta::namespace(&object).to_owned();
    let key = resource.key(&namespace, &name);
    if context.store.get(&key).is_some() {
        return Err(Box::new(Status::already_exists(kind, &name)));
    }
    if dry_run {
        return Ok(Arc::new(unstored(kind.write_form(object))));
    }
    let companions = match &reservation {
        Some(_) => context.allocator.companions(Some(&object), None, &now()),
        None => Vec::new(),
    };
    let mut writes = vec![Write {
        key,
        condition: Condition::Absent,
        change: Change::Put(kind.write_form(object)),
        namespace: admit::namespace_guard(context, resource, &namespace),
    }];
    writes.extend(companions);
    let hold = reservation.map(|reservation| Box::new(reservation) as Hold);
    let created = context
        .store
        .transact(writes, hold)
        .await
        .map_err(|error: WriteError| {
            Box::new(write_error(context, kind, (&namespace, &name), error))
        })?;
    if resource.is("", "Namespace") {
        populate(context, &name).await;
    }
    Ok(created)
}

/// Everything between decoding and the store.
fn prepare(
    context: &Context,
    resource: &Resource,
    mut object: Value,
    dry_run: bool,
    owners: Owners<'_>,
) -> Result<(Value, Option<Reservation>), Failure> {
    let kind = &resource.kind;
    let namespace = meta::namespace(&object).to_owned();
    if let Some(guard) = admit::namespace_guard(context, resource, &namespace) {
        admit::check_namespace(context, kind, &guard, meta::name(&object))?;
    }
    kind.default(&mut object);
    owners.record(kind, None, &mut object);
    let reservation = if resource.is("", "Service") {
        Some(context.allocator.assign(&mut object, None, dry_run)?)
    } else {
        None
    };
    kind.prepare_create(&mut object);
    admit::complete(resource, &mut object);
    meta::set_uid(&mut object, &uuid::Uuid::new_v4().to_string());
    meta::set_creation_timestamp(&mut object, &now());
    let mut causes = kind.validate_create(&object);
    causes.extend(custom::rule_faults(resource, &object));
    if !causes.is_empty() {
        let name = meta::name(&object);
        return Err(Box::new(Status::invalid(kind, name, &causes)));
    }
    Ok((object, reservation))
}

/// Give a new namespace what every namespace has.
async fn populate(context: &Context, namespace: &str) {
    for (resource, object) in admit::default_objects(context, namespace) {
        let made = Box::pin(create_object(context, &resource, object, false)).await;
        if let Err(failure) = made {
            tracing::warn!(namespace, kind = resource.kind.kind, %failure, "cannot create a default object");
        }
    }
}

/// The answer of a dry run: an object that was never stored.
pub(super) fn unstored(object: Value) -> Stored {
    let revision = crate::store::revision_of(&object).unwrap_or(0);
    Stored::new(revision, bytes::Bytes::from(object.to_string()), false)
}

/// The time as Kubernetes writes it: whole seconds.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

fn generate(base: &str) -> String {
    let base: String = base.chars().take(MAX_GENERATED_BASE).collect();
    let random = uuid::Uuid::new_v4().as_u128();
    let mut rest = random;
    let letters = LETTERS.len() as u128;
    let suffix = (0..SUFFIX_LENGTH).filter_map(|_| {
        let index = usize::try_from(rest % letters).ok()?;
        rest /= letters;
        LETTERS.get(index).copied().map(char::from)
    });
    base.chars().chain(suffix).collect()
}
