//! What the edge is told, as whole documents.

use serde_json::json;

use crate::server::edge::EdgeSettings;
use crate::server::edge::caddy::render::{config, container, tenant_file};

#[test]
#[expect(clippy::too_many_lines, reason = "the whole document is the assertion")]
fn the_configuration_names_no_tenant() {
    let mut config = config(&EdgeSettings::default());
    let servers = config["apps"]["http"]["servers"]
        .as_object_mut()
        .expect("servers");
    let mut https = servers.shift_remove("https").expect("https");
    // The two servers do the same.
    assert_eq!(
        https
            .as_object_mut()
            .and_then(|it| it.shift_remove("tls_connection_policies")),
        Some(json!([{}]))
    );
    https["listen"] = json!([":8080"]);
    assert_eq!(https, servers["http"]);
    insta::assert_json_snapshot!(config, @r#"
    {
      "admin": {
        "disabled": true,
        "config": {
          "persist": false
        }
      },
      "apps": {
        "http": {
          "grace_period": "10s",
          "servers": {
            "http": {
              "listen": [
                ":8080"
              ],
              "automatic_https": {
                "disable": true
              },
              "protocols": [
                "h1",
                "h2"
              ],
              "read_header_timeout": "10s",
              "idle_timeout": "2m",
              "routes": [
                {
                  "match": [
                    {
                      "path": [
                        "/.well-known/systemprompt/edge"
                      ]
                    }
                  ],
                  "handle": [
                    {
                      "handler": "static_response",
                      "status_code": "200",
                      "body": "edge\n"
                    }
                  ]
                },
                {
                  "match": [
                    {
                      "host": [
                        "*.localhost"
                      ],
                      "header_regexp": {
                        "Host": {
                          "pattern": "^[a-z0-9-]+\\.localhost(:[0-9]+)?$"
                        }
                      },
                      "file": {
                        "root": "/data/systemprompt/tenants",
                        "try_files": [
                          "/{http.request.host.labels.1}"
                        ]
                      }
                    }
                  ],
                  "handle": [
                    {
                      "handler": "reverse_proxy",
                      "upstreams": [
                        {
                          "dial": "{http.request.host.labels.1}.app:8080"
                        }
                      ],
                      "transport": {
                        "protocol": "http",
                        "dial_timeout": "300ms",
                        "keep_alive": {
                          "enabled": false
                        }
                      },
                      "load_balancing": {
                        "try_duration": "3s",
                        "try_interval": "50ms"
                      },
                      "headers": {
                        "request": {
                          "delete": [
                            "X-Session-*"
                          ]
                        }
                      }
                    }
                  ]
                },
                {
                  "handle": [
                    {
                      "handler": "static_response",
                      "status_code": "404",
                      "headers": {
                        "Content-Type": [
                          "text/html; charset=utf-8"
                        ],
                        "Cache-Control": [
                          "no-store"
                        ]
                      },
                      "body": "<!doctype html><title>Not found</title><h1>There is nothing here</h1><p>No tenant answers under this name.</p>\n"
                    }
                  ]
                }
              ],
              "errors": {
                "routes": [
                  {
                    "handle": [
                      {
                        "handler": "static_response",
                        "status_code": "{http.error.status_code}",
                        "headers": {
                          "Content-Type": [
                            "text/html; charset=utf-8"
                          ],
                          "Cache-Control": [
                            "no-store"
                          ]
                        },
                        "body": "<!doctype html><title>Not available</title><h1>This tenant does not answer</h1><p>It has no running release, or its release does not accept connections. Try again in a moment.</p>\n"
                      }
                    ]
                  }
                ]
              }
            }
          }
        },
        "pki": {
          "certificate_authorities": {
            "local": {
              "install_trust": false
            }
          }
        },
        "tls": {
          "automation": {
            "policies": [
              {
                "subjects": [
                  "*.localhost"
                ],
                "issuers": [
                  {
                    "module": "internal"
                  }
                ],
                "on_demand": true
              }
            ]
          }
        }
      }
    }
    "#);
}

#[test]
fn labels_are_counted_from_the_right() {
    let settings = EdgeSettings {
        domain: "apps.example.com".to_owned(),
        ..EdgeSettings::default()
    };
    let text = config(&settings).to_string();
    assert!(text.contains("{http.request.host.labels.3}.app:8080"), "{text}");
}

#[test]
fn only_loopback_ports_are_published() {
    let spec = container("sp-x-edge", "caddy:2", &EdgeSettings::default());
    let bindings = spec
        .body
        .host_config
        .and_then(|host| host.port_bindings)
        .expect("ports");
    let published: Vec<_> = bindings
        .into_values()
        .flatten()
        .flatten()
        .map(|binding| binding.host_ip)
        .collect();
    assert_eq!(
        published,
        [Some("127.0.0.1".to_owned()), Some("127.0.0.1".to_owned())]
    );
}

#[test]
fn a_tenant_is_a_file_and_a_former_tenant_a_directory() {
    assert_eq!(tenant_file("acme", true).path, "systemprompt/tenants/acme");
    assert_eq!(tenant_file("acme", false).path, "systemprompt/tenants/acme/");
}
