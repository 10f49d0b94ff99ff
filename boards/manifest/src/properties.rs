//! Properties that a manifest adds to a device's node.

use std::ops::Not;

use dtoolkit::model::DeviceTreeProperty;
use toml::de::DeValue;

use crate::read::Value;
use crate::report::{At, Problem};

/// Properties that the tool writes itself.
const OWN: &[&str] = &["reg", "interrupts", "compatible", "phandle"];

/// A property, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    value: Contents,
}

#[derive(Clone, Debug)]
enum Contents {
    Nothing,
    Texts(Vec<String>),
    Cells(Vec<u32>),
}

/// Reads a property: `true`, a text or texts, a 32-bit number or numbers.
pub(crate) fn read(name: &At<&str>, value: &Value<'_>) -> Result<Property, Box<Problem>> {
    if OWN.contains(&name.value) {
        let message = format!("`{}` of a device's node is made by the tool", name.value);
        return Err(Box::new(
            Problem::new(&name.span, message).help("take it out of `properties`"),
        ));
    }
    // The length that the specification allows, and its characters (Devicetree v0.4, 2.2.4.1).
    let known = |c: char| c.is_ascii_alphanumeric() || ",._+?#-".contains(c);
    if name.value.is_empty() || name.value.len() > 31 || !name.value.chars().all(known) {
        let message = format!("`{}` is no name of a property", name.value.escape_debug());
        let help = "a name has 1 to 31 letters, digits and characters of `,._+?#-`";
        return Err(Box::new(Problem::new(&name.span, message).help(help)));
    }
    let contents = match value.get_ref() {
        DeValue::Boolean(true) => Some(Contents::Nothing),
        DeValue::Array(items) if items.is_empty().not() => {
            let texts: Option<Vec<_>> = items.iter().map(|item| text(item.get_ref())).collect();
            let cells: Option<Vec<_>> = items.iter().map(|item| cell(item.get_ref())).collect();
            texts.map(Contents::Texts).or(cells.map(Contents::Cells))
        }
        value => text(value)
            .map(|text| Contents::Texts(vec![text]))
            .or(cell(value).map(|cell| Contents::Cells(vec![cell]))),
    };
    let Some(value) = contents else {
        let message = format!("`{}` is no value of a property", name.value);
        let help = "write `true`, a text, a number below 2^32, or a list of texts or of numbers";
        return Err(Box::new(Problem::new(&value.span(), message).help(help)));
    };
    Ok(Property { name: name.value.to_owned(), value })
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned)
}

fn cell(value: &DeValue<'_>) -> Option<u32> {
    let number = value.as_integer()?;
    u32::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Property {
    /// As a device tree has it.
    pub(crate) fn node(&self) -> DeviceTreeProperty {
        let name = &*self.name;
        match &self.value {
            Contents::Nothing => DeviceTreeProperty::new_unchecked(name, Vec::<u8>::new()),
            Contents::Texts(texts) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                DeviceTreeProperty::new_unchecked(name, texts)
            }
            Contents::Cells(cells) => DeviceTreeProperty::new_unchecked(name, cells.clone()),
        }
    }
}
