//! A recipe of `tvb merge`: what is read is written so that it is read the same, and has numbers for a tensor or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tvb::jobs::merge::recipe::Recipe;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Recipe::parse(text) {
        Ok(recipe) => {
            let again = Recipe::parse(&recipe.to_yaml()).expect("a recipe that was written");
            assert_eq!(again.to_yaml(), recipe.to_yaml());
            for layer in [None, Some((1, 3))] {
                let numbers = |recipe: &Recipe| recipe.settings("layers.1.mlp.w", layer).map_err(|error| error.to_string());
                assert_eq!(numbers(&again), numbers(&recipe));
            }
        }
        Err(error) => assert!(!error.message().contains('\n'), "more than one line: {error}"),
    }
});
