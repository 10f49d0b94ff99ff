//! The example of an embedder is true: its machine, which is not the fake, carries its story to the end.

#[path = "../examples/embed.rs"]
mod embed;

#[test]
fn the_example_of_an_embedder_tells_its_story() {
    embed::main();
}

#[test]
fn the_example_of_an_embedder_is_short() {
    assert!(include_str!("../examples/embed.rs").lines().count() < 150);
}
