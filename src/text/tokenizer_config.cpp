#include "rometrace/text/tokenizer_config.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "text/added_token_json.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 7> kNamedTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                     "pad_token", "cls_token", "mask_token"};

/// The object that a file holds; an empty one where there is no file.
json read_object(const std::filesystem::path& path, const char* expected = "an object") {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return json::object();
  json object = parse_json_file(path);
  if (!object.is_object()) throw Error(label_of(path) + ": found " + shown(object) + "; expected " + expected);
  return object;
}

std::optional<bool> read_switch(const json& object, const char* name, const std::string& where) {
  const json value = object.value(name, json());
  if (value.is_null()) return std::nullopt;
  if (value.is_boolean()) return value.get<bool>();
  throw Error(where + ": \"" + name + "\" is " + shown(value) + "; expected true or false");
}

std::string read_name(const json& object, const char* name, const std::string& where) {
  const json value = object.value(name, json());
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  throw Error(where + ": \"" + name + "\" is " + shown(value) + "; expected a name");
}

/// A token as these files write it: its text, or an object with the text as "content"; nothing for null and none.
std::optional<std::string> read_token(const json& value, const std::string& where, const std::string& name) {
  if (value.is_null()) return std::nullopt;
  if (value.is_string()) return value.get<std::string>();
  const json content = value.is_object() ? value.value("content", json()) : json();
  if (content.is_string()) return content.get<std::string>();
  throw Error(where + ": \"" + name + "\" is " + shown(value) + "; expected a token's text");
}

void read_named_tokens(const json& object, const std::string& where, TokenizerConfig& config) {
  const auto add = [&](const json& value, const std::string& name, std::vector<std::string>& tokens) {
    const auto token = read_token(value, where, name);
    if (token && !token->empty()) tokens.push_back(*token);
    return token;
  };
  for (const char* name : kNamedTokens) {
    const auto token = add(object.value(name, json()), name, config.named);
    if (!token || std::string_view(name) != "bos_token") continue;
    config.bos_token = token;
    config.bos_where = where;
  }
  for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
    const json list = object.value(name, json());
    if (list.is_array() || list.is_object()) {
      for (const auto& value : list) add(value, name, config.extra);
    }
  }
}

/// added_tokens.json: token -> id, with no more said of them.
void read_added_tokens_json(const std::filesystem::path& path, TokenizerConfig& config) {
  const std::string where = label_of(path);
  const json tokens = read_object(path, "an object of token: id");
  config.added_where = where;
  const auto names = [](const std::vector<std::string>& list, const std::string& token) {
    return std::ranges::find(list, token) != list.end();
  };
  for (const auto& [content, id] : tokens.items()) {
    const bool special = names(config.named, content) || names(config.extra, content);
    config.added.push_back(read_added_token({{"content", content}, {"special", special}}, id, where));
  }
}

/// An id that is a name; what is no number comes back as it is, to be refused as no id.
json id_in(const std::string& key) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  return error == std::errc() && end == key.data() + key.size() ? json(id) : json(key);
}

void read_added_tokens_decoder(const json& added, TokenizerConfig& config) {
  if (!added.is_object()) {
    throw Error(config.where + ": \"added_tokens_decoder\" is " + shown(added) + "; expected an object");
  }
  for (const auto& [key, entry] : added.items()) {
    const std::string where = config.where + ", added_tokens_decoder." + one_line(key, 40);
    config.added.push_back(read_added_token(entry, id_in(key), where));
  }
}

std::string without_fast(std::string name) {
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

/// The class that reads a model's SentencePiece file, where no file names one.
std::string class_of_type(std::string_view model_type) {
  constexpr std::array<std::string_view, 3> kLikeLlama = {"llama", "mistral", "mixtral"};
  if (std::ranges::find(kLikeLlama, model_type) != kLikeLlama.end()) return "LlamaTokenizer";
  return model_type.starts_with("gemma") ? "GemmaTokenizer" : "";
}

bool is_like_llama(std::string_view name) {
  return name == "LlamaTokenizer" || name == "CodeLlamaTokenizer";
}

std::string class_of(const TokenizerConfig& config) {
  return config.tokenizer_class.empty() ? class_of_type(config.model_type) : config.tokenizer_class;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  const auto path = folder / "tokenizer_config.json";
  const json object = read_object(path);
  const auto config_json = folder / "config.json";
  const json model = read_object(config_json);
  TokenizerConfig config;
  config.where = config.class_where = config.added_where = label_of(path);
  config.tokenizer_class = without_fast(read_name(object, "tokenizer_class", config.where));
  if (config.tokenizer_class.empty()) {
    config.class_where = label_of(config_json);
    if (const json name = model.value("tokenizer_class", json()); name.is_string()) {
      config.tokenizer_class = without_fast(name.get<std::string>());
    }
  }
  if (const json type = model.value("model_type", json()); type.is_string())
    config.model_type = type.get<std::string>();
  config.add_bos_token = read_switch(object, "add_bos_token", config.where);
  config.add_prefix_space = read_switch(object, "add_prefix_space", config.where);
  config.legacy = read_switch(object, "legacy", config.where);
  config.lower_case = read_switch(object, "do_lower_case", config.where).value_or(false);
  read_named_tokens(object, config.where, config);
  if (object.contains("added_tokens_decoder")) {
    read_added_tokens_decoder(object["added_tokens_decoder"], config);
    return config;
  }
  const auto map = folder / "special_tokens_map.json";
  read_named_tokens(read_object(map), label_of(map), config);
  read_added_tokens_json(folder / "added_tokens.json", config);
  return config;
}

bool begins_with_bos(const TokenizerConfig& config) {
  const std::string name = class_of(config);
  return config.add_bos_token.value_or(is_like_llama(name) || name == "GemmaTokenizer");
}

std::optional<FirstSpace> first_space_of_class(const TokenizerConfig& config) {
  const bool is_mistral = config.model_type.starts_with("mistral") || config.model_type.starts_with("mixtral") ||
                          config.model_type.starts_with("ministral");
  if (!is_like_llama(config.tokenizer_class) || is_mistral) return std::nullopt;
  if (!config.add_prefix_space.value_or(true)) return FirstSpace::kNowhere;
  const bool is_legacy = config.tokenizer_class == "LlamaTokenizer" && config.legacy.value_or(false);
  return is_legacy ? FirstSpace::kOfEachStretch : FirstSpace::kOfTheText;
}

std::string bos_token_of(const TokenizerConfig& config) {
  if (config.bos_token) return *config.bos_token;
  const std::string name = class_of(config);
  return is_like_llama(name) ? "<s>" : name == "GemmaTokenizer" ? "<bos>" : "<|endoftext|>";
}

void refuse_bos(const TokenizerConfig& config, const std::string& bos) {
  const bool is_named = !config.bos_where.empty();
  throw Error(is_named ? config.bos_where + ": \"bos_token\" is " + in_quotes(bos) +
                             ", which is not in the vocabulary; expected a token of it"
                       : config.class_where + ": the begin-of-text token that goes with it is " + in_quotes(bos) +
                             ", which is not in the vocabulary; expected \"bos_token\" in tokenizer_config.json to "
                             "name one");
}

}  // namespace rometrace
