//! Random schedules: changes, failures, restarts, crashes and other filters, in any order. In the end the receiver knows what
//! stands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use klaxon_api::notify::{Filter, ReceiverConfig, SinkLimits};
use klaxon_schemas::action::{AlarmVerb, Verb};
use klaxon_schemas::names::{AlarmType, Text};
use klaxon_schemas::severity::Severity;

use super::node::{Mode, Node, World, in_an_hour, mix, picture, receiver};

/// How many schedules run at one time.
const AT_ONCE: usize = 4;

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides
    }

    fn severity(&mut self) -> Severity {
        Severity::ALL[self.roll(5) as usize]
    }
}

const NAMES: [&str; 2] = ["one", "two"];

fn configs(dice: &mut Dice) -> Vec<ReceiverConfig> {
    let config = |name: &&str| {
        let filter = Filter {
            severity_min: (dice.roll(3) > 0).then(|| dice.severity()),
            shelved: dice.roll(2) == 0,
            suppressed: dice.roll(2) == 0,
            ..Filter::default()
        };
        let fold_after = (dice.roll(2) == 0).then(|| Duration::from_millis(dice.roll(40)));
        ReceiverConfig { filter, fold_after, updates: dice.roll(2) == 0, replay_max: dice.roll(50), ..receiver(name) }
    };
    NAMES.iter().map(config).collect()
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().expect("makes");
    let world = World::default();
    for name in NAMES {
        let limits = SinkLimits { window: 1 + dice.roll(8) as usize, batch_max: 1 + dice.roll(4) as usize };
        world.on(name, |wire| wire.limits = limits);
    }
    let mut node = Node::open(dir.path(), &world);
    let mut wanted = configs(&mut dice);
    node.apply(wanted.clone());
    for _ in 0..150 {
        let resource = format!("host={}{}", ["a", "b", "c"][dice.roll(3) as usize], dice.roll(6));
        match dice.roll(100) {
            0..45 => node.raise(&resource, dice.severity()),
            45..65 => node.clear(&resource),
            65..68 => node.on(&resource, AlarmVerb::Retire { note: None }),
            68..71 => node.on(&resource, AlarmVerb::Acknowledge { note: None }),
            71..75 => {
                let shelve = AlarmVerb::Shelve { until: in_an_hour(), reason: Text::new("work").expect("valid") };
                node.on(&resource, shelve);
            }
            75..78 => node.on(&resource, AlarmVerb::Unshelve),
            78..80 => node.on(&resource, AlarmVerb::Purge),
            80..84 => {
                let alarm_type = AlarmType::new(["test.a", "test.b"][dice.roll(2) as usize]).expect("valid");
                let verb = match dice.roll(2) {
                    0 => Verb::Suppress { alarm_type, reason: None },
                    _ => Verb::Unsuppress { alarm_type },
                };
                node.act(verb);
            }
            84..94 => {
                let mode = match dice.roll(5) {
                    0 | 1 => Mode::Up,
                    2 => Mode::Down,
                    _ => Mode::Chaos(dice.roll(u64::MAX)),
                };
                world.set(NAMES[dice.roll(2) as usize], mode);
            }
            94..97 => {
                wanted = configs(&mut dice);
                node.apply(wanted.clone());
            }
            97 => std::thread::sleep(Duration::from_millis(dice.roll(60))),
            other => {
                if other == 98 {
                    node.crash();
                } else {
                    node.close();
                }
                node = Node::open(dir.path(), &world);
                if dice.roll(3) == 0 {
                    wanted = configs(&mut dice);
                }
                node.apply(wanted.clone());
            }
        }
    }
    for config in &wanted {
        world.set(&config.name, Mode::Up);
        node.quiet(&config.name);
        let arrived = world.arrived(&config.name);
        let confirmed = world.on(&config.name, |wire| wire.confirmed.len() as u64);
        assert_eq!(confirmed, node.shown(&config.name).confirmed);
        assert_eq!(picture(&arrived), node.standing(config), "{}", config.name);
    }
    node.close();
}

#[test]
fn in_the_end_a_receiver_knows_what_stands_whatever_happened() {
    let seeds = if std::env::var_os("KLAXON_LONG").is_some() { 200 } else { 6 };
    let next = AtomicU64::new(0);
    // Most of a schedule is waiting.
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
                        eprintln!("seed {seed}");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
