//! The certificate authority and what it signs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Pair, San, failed, read, write};
use crate::OpenError;

/// The authority lasts as long as a cluster's (kubeadm: ten years).
const AUTHORITY_YEARS: i16 = 10;
/// What it signs lasts a year and is renewed at start in its last month.
const LEAF_YEARS: i16 = 1;
const RENEW_BEFORE_SECONDS: i64 = 30 * 24 * 3600;
/// Kubernetes' group that may do everything.
const ADMIN_GROUP: &str = "system:masters";
const ADMIN_NAME: &str = "kubernetes-admin";

/// The authority's certificate and key.
pub(super) struct Authority {
    pub(super) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let doing = || format!("use the certificate authority in {}", dir.display());
        if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?) {
            let key = KeyPair::from_pem(&key).map_err(|error| failed(doing(), error))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                .map_err(|error| failed(doing(), error))?;
            return Ok(Self {
                certificate,
                issuer,
            });
        }
        let doing = "make a certificate authority";
        let key = KeyPair::generate().map_err(|error| failed(doing, error))?;
        let mut params = params("kubernetes", None, AUTHORITY_YEARS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params
            .self_signed(&key)
            .map_err(|error| failed(doing, error))?
            .pem();
        write(&key_path, &key.serialize_pem())?;
        write(&certificate_path, &certificate)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    fn sign(&self, params: &CertificateParams, what: &str) -> Result<Pair, OpenError> {
        let doing = || format!("sign the certificate of {what}");
        let key = KeyPair::generate().map_err(|error| failed(doing(), error))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| failed(doing(), error))?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The server's certificate, signed anew when `names` differ from those in it.
pub(super) fn server(
    dir: &Path,
    authority: &Authority,
    names: &BTreeSet<San>,
) -> Result<Pair, OpenError> {
    let mut params = params("kube-apiserver", None, LEAF_YEARS);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        params.subject_alt_names.push(match name {
            San::Ip(ip) => SanType::IpAddress(*ip),
            San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(|error| {
                failed(format!("put the name {name:?} into the certificate"), error)
            })?),
        });
    }
    keep_or_sign(dir, authority, &params, "server", |certificate| {
        names_of(certificate) == *names
    })
}

/// The administrator's certificate.
pub(super) fn admin(dir: &Path, authority: &Authority) -> Result<Pair, OpenError> {
    let mut params = params(ADMIN_NAME, Some(ADMIN_GROUP), LEAF_YEARS);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    keep_or_sign(dir, authority, &params, "admin", |_| true)
}

fn keep_or_sign(
    dir: &Path,
    authority: &Authority,
    params: &CertificateParams,
    name: &str,
    fits: impl Fn(&X509Certificate<'_>) -> bool,
) -> Result<Pair, OpenError> {
    let certificate_path = dir.join(format!("{name}.crt"));
    let key_path = dir.join(format!("{name}.key"));
    if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?)
        && still_good(&certificate, &fits)
    {
        return Ok(Pair { certificate, key });
    }
    let pair = authority.sign(params, name)?;
    write(&key_path, &pair.key)?;
    write(&certificate_path, &pair.certificate)?;
    Ok(pair)
}

fn still_good(pem: &str, fits: &impl Fn(&X509Certificate<'_>) -> bool) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return false;
    };
    let Ok(certificate) = pem.parse_x509() else {
        return false;
    };
    let left = certificate.validity().not_after.timestamp() - Timestamp::now().as_second();
    left > RENEW_BEFORE_SECONDS && fits(&certificate)
}

fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<San> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| {
            if let GeneralName::DNSName(name) = name {
                return Some(San::Dns((*name).to_owned()));
            }
            let GeneralName::IPAddress(bytes) = name else {
                return None;
            };
            let ip = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            ip.ok().map(San::Ip)
        })
        .collect()
}

fn params(common_name: &str, organization: Option<&str>, years: i16) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    // From yesterday on, for clients whose clock is behind.
    let now = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let from = now.saturating_sub(Span::new().days(1));
    let to = now.saturating_add(Span::new().years(years));
    let day = |date: jiff::civil::Date| {
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(from);
    params.not_after = day(to);
    params.use_authority_key_identifier_extension = true;
    params
}

/// Common name and organizations of a client certificate: user and groups.
pub(crate) fn subject_of(der: &[u8]) -> Option<(String, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    (!name.is_empty()).then_some((name, groups))
}
