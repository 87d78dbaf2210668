//! `[refresh]`, and the same settings of one identity provider.

use super::{field::SettingType, section::Section};
use crate::{idp::Idp, supervisor::RefreshSettings};

pub(super) fn read(section: &mut Section<'_, '_>) -> RefreshSettings {
    let mut common = RefreshSettings::default();
    let RefreshSettings {
        margin,
        connect_timeout,
        attempt_timeout,
        patience,
        send_window,
        settle,
        lease,
        in_doubt,
        ..
    } = &mut common;
    read_times(section, [margin, connect_timeout, attempt_timeout, patience, send_window, settle, lease]);
    section.read("in_doubt", in_doubt);
    let default = RefreshSettings::default();
    for (key, time, default) in [
        ("attempt_timeout_seconds", &mut common.attempt_timeout, default.attempt_timeout),
        ("send_window_seconds", &mut common.send_window, default.send_window),
        ("lease_seconds", &mut common.lease, default.lease),
    ] {
        if time.is_zero() {
            section.wrong(key, NOT_ZERO);
            // Reported once, not again for each identity provider.
            *time = default;
        }
    }
    common
}

pub(super) fn read_own(section: &mut Section<'_, '_>, idp: &mut Idp) {
    let own = &mut idp.timing;
    read_times(
        section,
        [
            &mut own.margin,
            &mut own.connect_timeout,
            &mut own.attempt_timeout,
            &mut own.patience,
            &mut own.send_window,
            &mut own.settle,
            &mut own.lease,
        ],
    );
    section.read("in_doubt", &mut idp.in_doubt);
    let own = &idp.timing;
    for (key, time) in [
        ("attempt_timeout_seconds", own.attempt_timeout),
        ("send_window_seconds", own.send_window),
        ("lease_seconds", own.lease),
    ] {
        if time.is_some_and(|time| time.is_zero()) {
            section.wrong(key, NOT_ZERO);
        }
    }
}

const NOT_ZERO: &str = "must be longer than 0";

fn read_times<T: SettingType>(section: &mut Section<'_, '_>, into: [&mut T; 7]) {
    let keys = [
        "margin_seconds",
        "connect_timeout_seconds",
        "attempt_timeout_seconds",
        "patience_seconds",
        "send_window_seconds",
        "settle_seconds",
        "lease_seconds",
    ];
    for (key, into) in keys.into_iter().zip(into) {
        section.read(key, into);
    }
}
