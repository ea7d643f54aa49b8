#include "text/bpe_rules.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/split_pattern.hpp"
#include "text/added_token_json.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

[[noreturn]] void refuse_field(const std::string& where, const std::string& field, const json& found,
                               const std::string& expected) {
  throw Error(where + ": " + field + " is " + shown(found) + "; expected " + expected +
              "; rometrace reads byte-level BPE as GPT-2, GPT-NeoX, Llama 3 and Qwen have it");
}

std::string quoted(const std::string& name) {
  return "\"" + name + "\"";
}

struct KnownField {
  const char* name;
  std::vector<json> allowed;  ///< empty: any value
};

/// Refuses each field of `object` that is not known or has a value that would change the tokens.
void check_fields(const json& object, const std::string& where, const std::string& prefix,
                  const std::vector<KnownField>& known) {
  for (const auto& [name, value] : object.items()) {
    const std::string field = quoted(prefix + one_line(name, 60));
    const auto at = std::ranges::find_if(known, [&key = name](const KnownField& entry) { return key == entry.name; });
    if (at == known.end()) refuse_field(where, field, value, "no such field");
    const bool allowed = at->allowed.empty() || std::ranges::find(at->allowed, value) != at->allowed.end();
    if (!allowed) refuse_field(where, field, value, shown(at->allowed.front()));
  }
}

bool has_type(const json& stage, std::string_view type) {
  return stage.is_object() && stage.value("type", json()) == std::string(type);
}

/// The stages of a Sequence by their names ("normalizer.normalizers[0]"), or the one stage that there is.
std::vector<std::pair<std::string, const json*>> stages_of(const json& stage, const std::string& name,
                                                           const char* member_name, const std::string& where) {
  if (!has_type(stage, "Sequence")) return {{name, &stage}};
  check_fields(stage, where, name + ".", {{"type", {}}, {member_name, {}}});
  const json& list = member(stage, member_name, where + ", " + name);
  const std::string list_name = name + "." + member_name;
  if (!list.is_array()) refuse_field(where, quoted(list_name), list, "a list");
  std::vector<std::pair<std::string, const json*>> stages;
  for (std::size_t i = 0; i < list.size(); ++i) {
    stages.emplace_back(list_name + "[" + std::to_string(i) + "]", &list[i]);
  }
  return stages;
}

bool read_flag(const json& object, const char* name, const std::string& where, const std::string& prefix) {
  const json& value = member(object, name, where + ", " + prefix);
  if (!value.is_boolean()) refuse_field(where, quoted(prefix + "." + name), value, "true or false");
  return value.get<bool>();
}

BpeRules::Normalizer read_normalizer(const json& stage, const std::string& where) {
  if (stage.is_null()) return BpeRules::Normalizer::kNone;
  auto normalizer = BpeRules::Normalizer::kNone;
  for (const auto& [name, part] : stages_of(stage, "normalizer", "normalizers", where)) {
    if (!has_type(*part, "NFC")) refuse_field(where, quoted(name), *part, "null or type NFC");
    check_fields(*part, where, name + ".", {{"type", {}}});
    normalizer = BpeRules::Normalizer::kNfc;
  }
  return normalizer;
}

SplitRule read_split(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"pattern", {}}, {"behavior", {}}, {"invert", {}}});
  const json& pattern = member(stage, "pattern", where + ", " + name);
  const json regex = pattern.is_object() ? pattern.value("Regex", json()) : json();
  const json text = pattern.is_object() ? pattern.value("String", json()) : json();
  SplitRule split;
  if (regex.is_string()) {
    split.pattern = to_pcre2(regex.get<std::string>(), where + ", " + name);
  } else if (text.is_string() && !text.get_ref<const std::string&>().empty()) {
    split.pattern = literal_pattern(text.get<std::string>());
  } else {
    refuse_field(where, quoted(name + ".pattern"), pattern, R"({"Regex": "..."} or {"String": "..."})");
  }
  const json& behavior = member(stage, "behavior", where + ", " + name);
  const bool removes = behavior == "Removed";
  if (!removes && behavior != "Isolated") {
    refuse_field(where, quoted(name + ".behavior"), behavior, R"("Isolated" or "Removed")");
  }
  const bool inverted = read_flag(stage, "invert", where, name);
  if (removes) split.keep = inverted ? SplitRule::Keep::kMatches : SplitRule::Keep::kBetween;
  return split;
}

SplitRule read_digits(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"individual_digits", {}}});
  const bool individual = read_flag(stage, "individual_digits", where, name);
  return {to_pcre2(individual ? R"(\p{N})" : R"(\p{N}+)", where)};
}

void read_byte_level(const json& stage, const std::string& where, const std::string& name, BpeRules& rules) {
  check_fields(stage, where, name + ".",
               {{"type", {}}, {"add_prefix_space", {}}, {"trim_offsets", {}}, {"use_regex", {}}});
  if (read_flag(stage, "add_prefix_space", where, name)) {
    if (!rules.splits.empty())
      refuse_field(where, quoted(name + ".add_prefix_space"), true, "false after other stages");
    rules.first_space = BpeRules::FirstSpace::kAdded;
  }
  if (!stage.contains("use_regex") || read_flag(stage, "use_regex", where, name)) rules.splits.push_back(gpt2_split());
}

void read_pre_tokenizer(const json& stage, const std::string& where, BpeRules& rules) {
  const auto stages = stages_of(stage, "pre_tokenizer", "pretokenizers", where);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const auto& [name, part] = stages[i];
    const bool last = i + 1 == stages.size();
    if (last && has_type(*part, "ByteLevel")) {
      read_byte_level(*part, where, name, rules);
      return;
    }
    if (!last && has_type(*part, "Split")) {
      rules.splits.push_back(read_split(*part, where, name));
    } else if (!last && has_type(*part, "Digits")) {
      rules.splits.push_back(read_digits(*part, where, name));
    } else {
      refuse_field(where, quoted(name), *part, last ? "type ByteLevel" : "type Split or Digits");
    }
  }
  refuse_field(where, "\"pre_tokenizer\"", stage, "type ByteLevel");
}

void check_byte_level(const json& stage, const std::string& where, const std::string& name) {
  if (!has_type(stage, "ByteLevel")) refuse_field(where, quoted(name), stage, "type ByteLevel");
  // None of these has an effect here.
  check_fields(stage, where, name + ".",
               {{"type", {}}, {"add_prefix_space", {}}, {"trim_offsets", {}}, {"use_regex", {}}});
}

/// A SentencePiece model that was converted says so in one of these.
void refuse_converted(const json& root, const std::string& where) {
  const json& model = root.value("model", json::object());
  const auto names_space = [&](const char* stage) {
    return root.value(stage, json()).dump(-1, ' ', false, json::error_handler_t::replace).find("\u2581") !=
           std::string::npos;
  };
  const bool falls_back = model.is_object() && model.value("byte_fallback", json()) == true;
  if (!falls_back && !names_space("normalizer") && !names_space("pre_tokenizer")) return;
  const std::string field = falls_back                  ? "\"model.byte_fallback\" is true; expected false"
                            : names_space("normalizer") ? "\"normalizer\" writes spaces as \"▁\""
                                                        : "\"pre_tokenizer\" writes spaces as \"▁\"";
  throw Error(where + ": " + field +
              "; this file was converted from a SentencePiece model; put that model, tokenizer.model, beside it");
}

void check_model(const json& root, const std::string& where) {
  const json& model = member(root, "model", where);
  if (!model.is_object()) throw Error(where + ": \"model\" is " + shown(model) + "; expected an object");
  check_fields(model, where, "model.",
               {{"type", {"BPE"}},
                {"dropout", {nullptr, 0.0}},
                {"unk_token", {}},  // without effect: every byte has a token, or encoding says which has none
                {"continuing_subword_prefix", {nullptr, ""}},
                {"end_of_word_suffix", {nullptr, ""}},
                {"fuse_unk", {}},
                {"byte_fallback", {false, nullptr}},
                {"ignore_merges", {false, true, nullptr}},
                {"vocab", {}},
                {"merges", {}}});
}

/// The ids that a template puts before the text. What it puts behind is left off.
std::vector<std::int32_t> ids_before_text(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".", {{"type", {}}, {"single", {}}, {"pair", {}}, {"special_tokens", {}}});
  const std::string place = where + ", " + name;
  const json& parts = member(stage, "single", place);
  const auto refuse = [&] {
    refuse_field(where, quoted(name + ".single"), parts, "a list of special tokens and one text, \"A\"");
  };
  if (!parts.is_array()) refuse();
  std::vector<std::int32_t> ids;
  for (const json& part : parts) {
    if (!part.is_object()) refuse();
    if (part.contains("Sequence")) {
      if (member(part["Sequence"], "id", place) != "A") refuse();
      return ids;
    }
    const json& token = member(member(part, "SpecialToken", place), "id", place);
    if (!token.is_string()) refuse();
    const auto& known = member(stage, "special_tokens", place);
    const auto& text = token.get_ref<const std::string&>();
    const json& token_ids = member(member(known, text, place), "ids", place);
    if (!token_ids.is_array()) refuse_field(where, quoted(name + ".special_tokens"), known, "a list of ids for each");
    for (const json& id : token_ids) ids.push_back(read_token_id(id, place, text));
  }
  refuse();
  return ids;
}

}  // namespace

const json& member(const json& object, std::string_view name, const std::string& where) {
  if (!object.is_object()) throw Error(where + ": found " + shown(object) + "; expected an object");
  const auto found = object.find(name);
  if (found == object.end()) {
    throw Error(where + ": has no " + quoted(one_line(name, 60)) + "; expected one; is the file complete?");
  }
  return *found;
}

BpeRules read_rules(const json& root, const std::string& where) {
  if (!root.is_object()) throw Error(where + ": found " + shown(root) + "; expected an object");
  check_fields(root, where, "",
               {{"version", {}},
                {"truncation", {}},
                {"padding", {}},
                {"added_tokens", {}},
                {"normalizer", {}},
                {"pre_tokenizer", {}},
                {"post_processor", {}},
                {"decoder", {}},
                {"model", {}}});
  refuse_converted(root, where);
  BpeRules rules;
  rules.normalizer = read_normalizer(root.value("normalizer", json()), where);
  read_pre_tokenizer(member(root, "pre_tokenizer", where), where, rules);
  const json decoder = root.value("decoder", json());
  if (!decoder.is_null()) check_byte_level(decoder, where, "decoder");
  check_model(root, where);
  if (root["model"].value("ignore_merges", json()) == true) rules.whole_parts = BpeRules::WholeParts::kAsTokens;
  return rules;
}

std::vector<std::int32_t> prefix_of(const json& post_processor, const std::string& where) {
  if (post_processor.is_null()) return {};
  std::optional<std::vector<std::int32_t>> prefix;
  for (const auto& [name, part] : stages_of(post_processor, "post_processor", "processors", where)) {
    if (!has_type(*part, "TemplateProcessing")) {
      check_byte_level(*part, where, name);
      continue;
    }
    if (prefix) refuse_field(where, quoted(name), *part, "one template");
    prefix = ids_before_text(*part, where, name);
  }
  return prefix.value_or(std::vector<std::int32_t>());
}

}  // namespace rometrace
