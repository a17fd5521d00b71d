//! The registry of recipes is complete, permanent and closed.

use std::collections::BTreeSet;

use super::*;

const PERMANENT_NUMBERS: &str = include_str!("../../testdata/flavours.txt");

#[test]
fn every_recipe_is_found_again_by_its_id_and_by_its_name() {
    for recipe in Recipe::all() {
        assert_eq!(Recipe::from_id(recipe.id()), Some(recipe));
        assert_eq!(Recipe::parse(recipe.name()), Some(recipe));
        let json = serde_json::to_string(&recipe).expect("json");
        assert_eq!(serde_json::from_str::<Recipe>(&json).expect("json"), recipe);
    }
}

#[test]
fn ids_and_names_are_unique() {
    let ids: BTreeSet<u16> = Recipe::all().map(Recipe::id).collect();
    let names: BTreeSet<&str> = Recipe::all().map(Recipe::name).collect();
    assert_eq!(ids.len(), Recipe::all().count());
    assert_eq!(names.len(), Recipe::all().count());
}

#[test]
fn flavour_numbers_are_dense_and_fit_eight_bits() {
    let mut numbers: Vec<u16> = FAMILIES
        .iter()
        .flat_map(|row| row.flavours.iter().map(|(number, _)| *number))
        .collect();
    numbers.sort_unstable();
    let dense: Vec<u16> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, dense);
    assert!(numbers.len() < 256, "eight bits hold 255 flavours");
}

#[test]
fn a_flavour_keeps_its_number_for_ever() {
    let mut known = 0;
    for line in PERMANENT_NUMBERS
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (number, name) = line.split_once(' ').expect("number and name");
        let recipe = Recipe::parse(&format!("{name}/lora")).expect(name);
        assert_eq!((recipe.id() >> FLAVOUR_SHIFT).to_string(), number, "{name}");
        known += 1;
    }
    let flavours: usize = FAMILIES.iter().map(|row| row.flavours.len()).sum();
    assert_eq!(known, flavours, "add new flavours to testdata/flavours.txt");
}

#[test]
fn ids_are_composed_as_they_always_were() {
    for (name, id) in [
        ("ace_step.base/lora", 1 << 7),
        ("ace_step.base/lora+ckpt", (1 << 7) | 1),
        ("ace_step.base/lycoris", (1 << 7) | (1 << 1)),
        ("ace_step.base/full+ckpt", (1 << 7) | (2 << 1) | 1),
        ("auraflow.pony/controlnet", (11 << 7) | (3 << 1)),
        (
            "auraflow.pony/controlnet-lora+ckpt",
            (11 << 7) | (4 << 1) | 1,
        ),
    ] {
        assert_eq!(Recipe::parse(name).map(Recipe::id), Some(id), "{name}");
    }
    let clip = Recipe::parse("wan.t2v-480p-1.3b-2.1/lora+ckpt@81f").expect("a clip");
    assert_eq!(clip.id() & 0b111_1111, (5 << 4) | 1);
    let clip = |name| Recipe::parse(name).expect("a clip").id();
    let longest = clip("wan.t2v-480p-1.3b-2.1/lora+ckpt@241f");
    assert_eq!(longest & 0b111_1111, (7 << 4) | 1);
    let ninth = clip("wan.t2v-480p-1.3b-2.1/lora+ckpt@129f");
    assert_eq!(ninth, (longest & !(7 << 4)) | (1 << 15));
    let eleventh = clip("wan.t2v-480p-1.3b-2.1/lora+ckpt@193f");
    assert_eq!(eleventh, ninth | (2 << 4));
}

#[test]
fn a_configuration_finds_its_recipe() {
    let find = |family, flavour, method| Recipe::find(family, flavour, method, Checkpointing::On);
    let names = |found: Result<Recipe, Error>| found.map(Recipe::name);
    for (family, flavour, method, found) in [
        ("flux", Some("dev"), Method::Lora, Ok("flux.dev/lora+ckpt")),
        ("flux", None, Method::Lycoris, Ok("flux.krea/lycoris+ckpt")),
        ("SDXL", None, Method::Full, Ok("sdxl.base-1.0/full+ckpt")),
        (
            "pixart_sigma",
            None,
            Method::Lora,
            Ok("pixart.900M-1024-v0.6/lora+ckpt"),
        ),
        (
            "qwen_image",
            Some("edit-v2+"),
            Method::Lora,
            Ok("qwen_image.edit-v2+/lora+ckpt"),
        ),
        (
            "sd3",
            None,
            Method::ControlNetLora,
            Ok("sd3.medium/controlnet-lora+ckpt"),
        ),
        (
            "secret-model",
            None,
            Method::Lora,
            Err(Error::UnknownFamily),
        ),
    ] {
        assert_eq!(names(find(family, flavour, method)), found, "{family}");
    }
    let flux = Family::find("flux").expect("flux");
    assert_eq!(
        find("flux", Some("../../etc"), Method::Lora),
        Err(Error::UnknownFlavour { family: flux })
    );
    let deepfloyd = Family::find("deepfloyd").expect("deepfloyd");
    assert_eq!(
        find("deepfloyd", None, Method::Lora),
        Err(Error::FlavourRequired { family: deepfloyd })
    );
    let wan = Family::find("wan").expect("wan");
    let method = Method::ControlNet;
    assert_eq!(
        find("wan", None, method),
        Err(Error::NoSuchMethod {
            family: wan,
            method
        })
    );
}

#[test]
fn titles_are_what_people_say() {
    for (name, title) in [
        ("flux.dev/lora", "FLUX LoRA"),
        ("flux.dev/lora+ckpt", "FLUX LoRA"),
        ("flux.krea/lora", "FLUX krea LoRA"),
        ("sdxl.base-1.0/full", "SDXL full fine-tune"),
        ("sd3.medium/controlnet", "SD3 ControlNet"),
        ("sd1x.1.5/lycoris", "SD 1.x 1.5 LyCORIS"),
    ] {
        assert_eq!(
            Recipe::parse(name).map(Recipe::title).as_deref(),
            Some(title)
        );
    }
}

#[test]
fn only_clips_count_frames() {
    let flux = Recipe::parse("flux.dev/lora").expect("flux");
    assert_eq!(flux.at_frames(81), Some(flux));
    let wan = Recipe::parse("wan.ti2v-5b-2.2/lora").expect("wan");
    assert_eq!(wan.at_frames(1), Some(wan));
    let clip = wan.at_frames(49).expect("a class");
    assert_eq!(clip.name(), "wan.ti2v-5b-2.2/lora@49f");
    assert_eq!(clip.at_frames(1), Some(wan));
    assert_eq!(wan.at_frames(1_000), None);
    for recipe in Recipe::all() {
        for checkpointing in Checkpointing::ALL {
            let other = recipe.with_checkpointing(checkpointing);
            assert_eq!(Recipe::from_id(other.id()), Some(other));
            assert_eq!(other.checkpointing(), checkpointing);
        }
        for frames in 1..=241 {
            let other = recipe.at_frames(frames).expect("a class");
            assert_eq!(Recipe::from_id(other.id()), Some(other));
        }
    }
}

#[test]
fn table_is_sorted_and_its_defaults_exist() {
    assert!(FAMILIES.is_sorted_by_key(|row| row.name));
    for family in Family::all() {
        let row = family.row();
        assert_eq!(Family::find(row.name), Some(family));
        assert!(
            family
                .flavours()
                .any(|flavour| flavour == row.untitled_flavour)
        );
        if let Some(default) = row.default_flavour {
            assert!(family.flavours().any(|flavour| flavour == default));
        }
    }
}

#[test]
fn an_unknown_name_is_refused_without_being_repeated() {
    let error = serde_json::from_str::<Recipe>("\"hf_secret_token\"").expect_err("unknown");
    assert!(!error.to_string().contains("hf_secret"), "{error}");
}
