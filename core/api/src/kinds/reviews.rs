//! Questions that are asked by creating an object: who am I, may I do this,
//! whose token is that. Nothing is stored; the answer is in `status`.

use super::{BASE, Kind, schema_of};
use crate::cause::Cause;
use crate::value::{at, str_at};
use k8s_openapi::api::{authentication::v1 as authentication, authorization::v1 as authorization};
use serde_json::Value;

const CREATE: &[&str] = &["create"];

/// `kubectl auth whoami`.
pub static SELF_SUBJECT_REVIEW: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    list_kind: "SelfSubjectReviewList",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    namespaced: false,
    verbs: CREATE,
    definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
    schema: schema_of::<authentication::SelfSubjectReview>,
    ..BASE
};

/// Whose token is this?
pub static TOKEN_REVIEW: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    list_kind: "TokenReviewList",
    plural: "tokenreviews",
    singular: "tokenreview",
    namespaced: false,
    verbs: CREATE,
    definition: "io.k8s.api.authentication.v1.TokenReview",
    schema: schema_of::<authentication::TokenReview>,
    validate: |object, _| {
        if str_at(object, "spec.token").is_empty() {
            vec![Cause::required("spec.token", "")]
        } else {
            Vec::new()
        }
    },
    ..BASE
};

/// `kubectl auth can-i VERB RESOURCE`.
pub static SELF_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    list_kind: "SelfSubjectAccessReviewList",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    namespaced: false,
    verbs: CREATE,
    definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    schema: schema_of::<authorization::SelfSubjectAccessReview>,
    validate: |object, _| what(object),
    ..BASE
};

/// `kubectl auth can-i --list`.
pub static SELF_SUBJECT_RULES_REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    list_kind: "SelfSubjectRulesReviewList",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    namespaced: false,
    verbs: CREATE,
    definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    schema: schema_of::<authorization::SelfSubjectRulesReview>,
    ..BASE
};

/// May somebody else do this?
pub static SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    kind: "SubjectAccessReview",
    list_kind: "SubjectAccessReviewList",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    namespaced: false,
    verbs: CREATE,
    definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
    schema: schema_of::<authorization::SubjectAccessReview>,
    validate: |object, _| [what(object), who(object)].concat(),
    ..BASE
};

/// May somebody else do this in this namespace?
pub static LOCAL_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    list_kind: "LocalSubjectAccessReviewList",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    verbs: CREATE,
    definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    schema: schema_of::<authorization::LocalSubjectAccessReview>,
    validate: |object, _| [what(object), who(object), same_namespace(object)].concat(),
    ..BASE
};

impl Kind {
    /// Whether objects of this kind are questions, answered and forgotten.
    pub fn is_review(&self) -> bool {
        self.verbs == CREATE
            && matches!(self.group, "authentication.k8s.io" | "authorization.k8s.io")
    }
}

fn what(object: &Value) -> Vec<Cause> {
    let resource = at(object, "spec.resourceAttributes");
    let path = at(object, "spec.nonResourceAttributes");
    let why = match (resource.is_null(), path.is_null()) {
        (false, false) => "cannot be specified in combination with resourceAttributes",
        (true, true) => {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        }
        _ => return Vec::new(),
    };
    let field = if path.is_null() {
        "spec.resourceAttributes"
    } else {
        "spec.nonResourceAttributes"
    };
    vec![Cause::invalid(field, path, why)]
}

fn who(object: &Value) -> Vec<Cause> {
    let groups = at(object, "spec.groups");
    let nobody = str_at(object, "spec.user").is_empty()
        && groups.as_array().is_none_or(|groups| groups.is_empty());
    if nobody {
        let why = "at least one of user or group must be specified";
        return vec![Cause::invalid("spec.user", at(object, "spec.user"), why)];
    }
    Vec::new()
}

fn same_namespace(object: &Value) -> Vec<Cause> {
    let asked = at(object, "spec.resourceAttributes.namespace");
    if asked == at(object, "metadata.namespace") || asked.is_null() {
        return Vec::new();
    }
    let why = "must match metadata.namespace";
    vec![Cause::invalid(
        "spec.resourceAttributes.namespace",
        asked,
        why,
    )]
}
