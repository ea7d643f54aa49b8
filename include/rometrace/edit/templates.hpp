#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/edit/rome.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// Prefixes that the model says itself, each as a template "x. {}", where the prompt goes in the place of {}:
///  - kRome, kRRome: 10 of 4 new tokens and 10 of 9, from the begin-of-text token or, where there is none, the
///    end-of-text token;
///  - kMemit: five that go on from "The", "Therefore", "Because", "I" and "You" up to 10 tokens.
/// Each token is drawn from the five most probable (reference: `generate_fast` of kmeng01/rome, top_k 5) with the
/// uniform numbers of RandomState(seed), text by text; white space runs become one space, curly brackets go. Empty ones
/// and repeats are left out. The same for every number of threads unless two tokens are as probable to the last digits.
std::vector<std::string> generate_templates(EditMethod method, const Decoder& model, const Tokenizer& tokenizer,
                                            std::uint32_t seed, std::stop_token stop = {});

/// One a line, each with one `{}`; empty lines are passed over, and so is the bare `{}`, which every edit has. Throws
/// Error naming file and line.
std::vector<std::string> read_templates(const std::filesystem::path& file);

}  // namespace rometrace
