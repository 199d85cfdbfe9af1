use serde_json::json;

use super::*;

fn collections() -> Vec<Collection> {
    ["pods", "namespaces"]
        .map(|name| Collection {
            name: name.to_owned(),
        })
        .into()
}

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(&dir.join("state.redb"), collections())
}

fn pod(name: &str) -> (Key, Value) {
    (
        Key::new(0, "default", name),
        json!({"metadata": {"name": name, "labels": {"app": name}}}),
    )
}

/// The writer thread closes the file only after the store is dropped.
async fn reopen(dir: &Path) -> Store {
    for _ in 0..500 {
        match open(dir) {
            Err(OpenError::InUse { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other => return other.unwrap(),
        }
    }
    panic!("the state file stayed locked");
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (a, value) = pod("a");
    let first = store.create(a.clone(), value.clone(), None).await.unwrap();
    let second = store
        .replace(a.clone(), value.clone(), first.revision)
        .await
        .unwrap();
    let (b, other) = pod("b");
    let third = store.create(b.clone(), other, None).await.unwrap();
    store.remove(b.clone(), third.revision).await.unwrap();
    let revision = store.cache().revision();
    assert_eq!(revision, 4);
    assert!(matches!(open(dir.path()), Err(OpenError::InUse { .. })));
    drop(store);

    let store = reopen(dir.path()).await;
    assert_eq!(store.cache().revision(), revision);
    let found = store.get(&a).unwrap();
    assert_eq!(found.revision, second.revision);
    assert_eq!(found.label("app"), Some("a"));
    assert!(store.get(&b).is_none());
    let next = store.create(b, pod("b").1, None).await.unwrap();
    assert_eq!(next.revision, 5);
}

#[tokio::test]
async fn compare_and_swap_on_the_resource_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (key, value) = pod("a");
    let first = store
        .create(key.clone(), value.clone(), None)
        .await
        .unwrap();
    let again = store.create(key.clone(), value.clone(), None).await;
    assert!(matches!(again, Err(WriteError::Exists)));
    let writes = (0..20).map(|_| store.replace(key.clone(), value.clone(), first.revision));
    let results = futures::future::join_all(writes).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1);
    let stale = store.remove(key.clone(), first.revision).await;
    assert!(matches!(stale, Err(WriteError::Conflict)));
}

#[tokio::test]
async fn nothing_is_born_into_a_missing_or_ending_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let namespace = Key::new(1, "", "default");
    let (key, value) = pod("a");
    let guard = Some(namespace.clone());
    let refused = store
        .create(key.clone(), value.clone(), guard.clone())
        .await;
    assert!(matches!(refused, Err(WriteError::NoNamespace)));
    let ending =
        json!({"metadata": {"name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    store.create(namespace, ending, None).await.unwrap();
    let refused = store.create(key, value, guard).await;
    assert!(matches!(refused, Err(WriteError::Terminating)));
}

#[tokio::test]
async fn the_window_is_bounded_and_says_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (key, value) = pod("a");
    store
        .create(key.clone(), value.clone(), None)
        .await
        .unwrap();
    let others = (0..cache::WINDOW_EVENTS).map(|n| {
        let (key, value) = pod(&format!("p{n}"));
        store.create(key, value, None)
    });
    let results = futures::future::join_all(others).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(matches!(
        store.cache().after(0, 0),
        Next::Expired { oldest: 1 }
    ));
    let mut position = 1;
    let mut seen = 0;
    loop {
        let Next::Events { events, revision } = store.cache().after(0, position) else {
            panic!("expired");
        };
        if events.is_empty() {
            break;
        }
        assert!(events.iter().all(|event| event.revision > position));
        seen += events.len();
        position = revision;
    }
    assert_eq!(seen, cache::WINDOW_EVENTS);
    assert_eq!(position, store.cache().revision());
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_where_it_missed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (a, value) = pod("a");
    let first = store.create(a.clone(), value, None).await.unwrap();
    store.remove(a, first.revision).await.unwrap();
    let namespace = Key::new(1, "", "n");
    let object = json!({"metadata": {"name": "n"}});
    store.create(namespace, object, None).await.unwrap();
    drop(store);

    let store = reopen(dir.path()).await;
    let missed = |kind: KindIndex, revision: u64| match store.cache().after(kind, revision) {
        Next::Expired { .. } => true,
        Next::Events { events, .. } => {
            assert!(events.is_empty());
            false
        }
    };
    // The pod was gone at 2, the namespace came at 3.
    assert_eq!(
        [1, 2, 3].map(|revision| missed(0, revision)),
        [true, false, false]
    );
    assert_eq!([2, 3].map(|revision| missed(1, revision)), [true, false]);
    assert!(store.cache().unchanged_since(0, 2).is_some());
    assert!(store.cache().unchanged_since(1, 2).is_none());
}

#[tokio::test]
async fn a_file_of_the_first_layout_is_read_and_written_anew() {
    use redb::TableDefinition;
    const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    let database = redb::Database::create(dir.path().join("state.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(META).unwrap();
        meta.insert("layout", 1).unwrap();
        meta.insert("revision", 9).unwrap();
        let mut objects = write.open_table(OBJECTS).unwrap();
        let value = json!({"metadata": {"name": "a", "resourceVersion": "7", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let json = value.to_string();
        objects
            .insert(("pods", "default", "a"), json.as_bytes())
            .unwrap();
    }
    write.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let store = reopen(dir.path()).await;
        assert_eq!(store.cache().revision(), 9);
        let found = store.get(&pod("a").0).unwrap();
        assert_eq!((found.revision, found.deleting), (7, true));
        assert_eq!(found.value()["metadata"]["name"], "a");
        assert!(matches!(
            store.cache().after(0, 8),
            Next::Expired { oldest: 9 }
        ));
    }
}
