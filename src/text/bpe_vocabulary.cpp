#include "rometrace/text/bpe_vocabulary.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_map>

#include "rometrace/error.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "text/bpe_tokens.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

// A token is checked in time quadratic in its length.
constexpr std::size_t kMaxTokenBytes = 4096;
constexpr std::string_view kEndOfText = "<|endoftext|>";

// ---------------------------------------------------------------------------------------------------------------------
// Reading: what both file formats share

/// A JSON value as a message shows it.
std::string shown(const json& value) {
  return one_line(value.dump(-1, ' ', false, json::error_handler_t::replace), 60);
}

std::string id_range() {
  return "a whole number from 0 to " + std::to_string(kMaxTokens - 1);
}

std::int32_t read_id(const json& value, const std::string& where, std::string_view token) {
  const bool whole = value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(kMaxTokens);
  if (!whole) {
    throw Error(where + ": token " + in_quotes(token) + " has the id " + shown(value) + "; expected " + id_range());
  }
  return value.get<std::int32_t>();
}

const json& member(const json& object, const char* name, const std::string& where) {
  if (!object.is_object()) throw Error(where + ": found " + shown(object) + "; expected an object");
  const auto found = object.find(name);
  if (found == object.end()) throw Error(where + ": has no \"" + name + "\"; expected one; is the file complete?");
  return *found;
}

/// {"token": id, ...} -> tokens by id.
std::vector<std::string> read_tokens(const json& object, const std::string& where) {
  if (!object.is_object()) throw Error(where + ": found " + shown(object) + "; expected an object of token: id");
  if (object.empty()) throw Error(where + ": has no tokens; expected an object of token: id");
  std::vector<std::string> tokens;
  for (const auto& [token, value] : object.items()) {
    if (token.empty()) throw Error(where + ": has the empty string as a token; expected at least one character");
    const auto id = static_cast<std::size_t>(read_id(value, where, token));
    if (id >= tokens.size()) tokens.resize(id + 1);
    if (!tokens[id].empty()) {
      throw Error(where + ": tokens " + in_quotes(tokens[id]) + " and " + in_quotes(token) + " both have the id " +
                  std::to_string(id) + "; expected an id for each");
    }
    tokens[id] = token;
  }
  return tokens;
}

/// Added tokens, checked against the vocabulary and against each other.
class SpecialReader {
 public:
  explicit SpecialReader(BpeVocabulary& vocabulary) : vocabulary_(vocabulary), ids_(ids_of(vocabulary.tokens)) {}

  void add(const std::string& content, std::int32_t id, const std::string& where) {
    if (content.empty()) throw Error(where + ": an added token is empty; expected at least one character");
    const auto known = ids_.find(content);
    const bool id_taken = static_cast<std::size_t>(id) < vocabulary_.tokens.size() && !token(id).empty();
    if (known != ids_.end() ? known->second != id : id_taken) {
      const std::string other = known != ids_.end()
                                    ? "which has the id " + std::to_string(known->second) + " in the vocabulary"
                                    : "but the vocabulary has the token " + in_quotes(token(id)) + " there";
      throw Error(where + ": added token " + in_quotes(content) + " has the id " + std::to_string(id) + ", " + other +
                  "; expected the same id");
    }
    for (const auto& [other, other_id] : vocabulary_.special) {
      if (other == content && other_id == id) return;  // several files list the same token
      if (other == content || other_id == id) {
        throw Error(where + ": added token " + in_quotes(content) + " has the id " + std::to_string(id) + ", but " +
                    in_quotes(other) + " has the id " + std::to_string(other_id) + "; expected an id for each token");
      }
    }
    vocabulary_.special.emplace_back(content, id);
  }

  /// Call when all are in: makes room for the ids that only added tokens use.
  void finish() {
    for (const auto& [content, id] : vocabulary_.special) {
      const auto size = static_cast<std::size_t>(id) + 1;
      if (size > vocabulary_.tokens.size()) vocabulary_.tokens.resize(size);
    }
  }

 private:
  const std::string& token(std::int32_t id) const { return vocabulary_.tokens[static_cast<std::size_t>(id)]; }

  BpeVocabulary& vocabulary_;
  TokenIds ids_;  // views of vocabulary_.tokens, which does not change before finish()
};

/// One entry of "added_tokens" (tokenizer.json) or "added_tokens_decoder" (tokenizer_config.json).
std::string read_added_token(const json& entry, const std::string& where) {
  const json& content = member(entry, "content", where);
  if (!content.is_string()) {
    throw Error(where + ": \"content\" is " + shown(content) + "; expected the token's text");
  }
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
    if (entry.contains(flag) && entry[flag] != false) {
      throw Error(where + ": added token " + in_quotes(content.get<std::string>()) + " has \"" + flag +
                  "\": " + shown(entry[flag]) + "; expected false; rometrace does not know this option");
    }
  }
  return content.get<std::string>();
}

void check_tokens(const BpeVocabulary& vocabulary, const std::string& where) {
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (token.size() > kMaxTokenBytes) {
      throw Error(where + ": token " + in_quotes(token, 40) + " is " + std::to_string(token.size()) +
                  " bytes long; expected at most " + std::to_string(kMaxTokenBytes));
    }
    if (from_byte_alphabet(token)) continue;
    const auto is_it = [id](const auto& special) { return special.second == static_cast<std::int32_t>(id); };
    if (std::ranges::any_of(vocabulary.special, is_it)) continue;
    throw Error(where + ": token " + in_quotes(token) + " (id " + std::to_string(id) +
                ") has a character outside GPT-2's byte alphabet; expected a byte-level BPE vocabulary (a space is " +
                "written \"Ġ\"); list the token in added_tokens.json if it is a special one");
  }
}

/// Adds merges to a vocabulary, checking each.
class MergeReader {
 public:
  MergeReader(BpeVocabulary& vocabulary, std::string vocabulary_name)
      : vocabulary_(vocabulary), vocabulary_name_(std::move(vocabulary_name)), ids_(ids_of(vocabulary.tokens)) {}

  /// `written` is "left right".
  void add(std::string_view written, const std::string& where) {
    const std::size_t space = written.find(' ');
    const bool two_parts = space != std::string_view::npos && space > 0 && space + 1 < written.size() &&
                           written.find(' ', space + 1) == std::string_view::npos;
    if (!two_parts) {
      throw Error(where + ": found " + in_quotes(written) + "; expected two tokens with one space between them");
    }
    add(std::string(written.substr(0, space)), std::string(written.substr(space + 1)), where);
  }

  void add(std::string left, std::string right, const std::string& where) {
    if (const auto missing = missing_token(ids_, left, right)) {
      throw Error(where + ": merge " + in_quotes(left + " " + right) + " " + missing->role + " " +
                  in_quotes(missing->token) + ", which is not in " + vocabulary_name_ +
                  "; expected files of the same tokeniser");
    }
    if (vocabulary_.merges.size() >= 2 * static_cast<std::size_t>(kMaxTokens)) {
      throw Error(where + ": too many merges; expected at most " + std::to_string(2 * kMaxTokens));
    }
    vocabulary_.merges.emplace_back(std::move(left), std::move(right));
  }

 private:
  BpeVocabulary& vocabulary_;
  std::string vocabulary_name_;
  TokenIds ids_;
};

bool is_present(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// ---------------------------------------------------------------------------------------------------------------------
// vocab.json + merges.txt

void read_merges_txt(const std::filesystem::path& path, BpeVocabulary& vocabulary, const std::string& vocabulary_name) {
  const std::string text = read_text_file(path);
  const std::string label = label_of(path);
  MergeReader merges(vocabulary, vocabulary_name);
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    // Only there: "#" is a token like any other further down.
    const bool is_version = number == 1 && line.starts_with("#version");
    if (is_version || line.empty()) continue;
    merges.add(line, label + ", line " + std::to_string(number));
  }
}

void read_added_tokens_json(const std::filesystem::path& path, SpecialReader& special) {
  const json added = parse_json_file(path);
  const std::string label = label_of(path);
  if (!added.is_object()) throw Error(label + ": found " + shown(added) + "; expected an object of token: id");
  for (const auto& [token, id] : added.items()) special.add(token, read_id(id, label, token), label);
}

/// The tokenizer classes of Hugging Face that mean GPT-2's files and nothing else. Many others keep a vocab.json and a
/// merges.txt too, but split or normalise text differently.
constexpr std::array<std::string_view, 5> kGpt2Classes = {"GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer",
                                                          "CodeGenTokenizerFast", "PreTrainedTokenizerFast"};

void read_tokenizer_config(const std::filesystem::path& path, SpecialReader& special) {
  const json config = parse_json_file(path);
  const std::string label = label_of(path);
  if (!config.is_object()) throw Error(label + ": found " + shown(config) + "; expected an object");
  if (config.contains("add_prefix_space") && config["add_prefix_space"] == true) {
    throw Error(label + ": \"add_prefix_space\" is true; expected false; rometrace does not know this option");
  }
  const json name = config.value("tokenizer_class", json());
  const bool known =
      name.is_null() ||
      std::ranges::any_of(kGpt2Classes, [&](auto known_name) { return name == std::string(known_name); }) ||
      name == "TokenizersBackend";  // what transformers 5 writes for any tokenizer.json
  if (!known) {
    throw Error(label + ": \"tokenizer_class\" is " + shown(name) +
                "; expected GPT2Tokenizer; other tokenisers with the same files split text differently");
  }
  const json added = config.value("added_tokens_decoder", json::object());
  if (!added.is_object()) throw Error(label + ": \"added_tokens_decoder\" is " + shown(added) + "; expected an object");
  for (const auto& [key, entry] : added.items()) {
    const std::string where = label + ", added_tokens_decoder." + one_line(key, 40);
    const std::string content = read_added_token(entry, where);
    const json id = json::parse(key, nullptr, false);  // the id is the name; not a number: read_id says so
    special.add(content, read_id(id.is_discarded() ? json(key) : id, where, content), where);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// tokenizer.json

[[noreturn]] void refuse_field(const std::string& where, const std::string& field, const json& found,
                               const std::string& expected) {
  throw Error(where + ": " + field + " is " + shown(found) + "; expected " + expected +
              "; rometrace reads byte-level BPE with GPT-2's pre-tokeniser only");
}

struct KnownField {
  const char* name;
  std::vector<json> allowed;  ///< empty: any value
};

/// Refuses each field of `object` that is not known or has a value that would change the tokens.
void check_fields(const json& object, const std::string& where, const std::string& prefix,
                  const std::vector<KnownField>& known) {
  for (const auto& [name, value] : object.items()) {
    const std::string field = "\"" + prefix + one_line(name, 60) + "\"";
    const auto at = std::ranges::find_if(known, [&](const KnownField& entry) { return name == entry.name; });
    if (at == known.end()) refuse_field(where, field, value, "no such field");
    const bool allowed = at->allowed.empty() || std::ranges::find(at->allowed, value) != at->allowed.end();
    if (!allowed) refuse_field(where, field, value, shown(at->allowed.front()));
  }
}

void check_byte_level(const json& stage, const std::string& where, const std::string& name, bool cuts_text) {
  if (!stage.is_object() || stage.value("type", json()) != "ByteLevel") {
    refuse_field(where, "\"" + name + "\"", stage, "type ByteLevel");
  }
  std::vector<KnownField> known = {{"type", {}}, {"add_prefix_space", {}}, {"trim_offsets", {}}, {"use_regex", {}}};
  if (cuts_text) {  // elsewhere these two fields have no effect
    member(stage, "add_prefix_space", where + ", " + name);
    known[1].allowed = {false};
    known[3].allowed = {true};
  }
  check_fields(stage, where, name + ".", known);
}

/// Refuses what would change the tokens. "truncation" and "padding" are about batches: transformers switches them off
/// for a single text, and so do we.
void check_pipeline(const json& root, const std::string& where) {
  if (!root.is_object()) throw Error(where + ": found " + shown(root) + "; expected an object");
  check_fields(root, where, "",
               {{"version", {}},
                {"truncation", {}},
                {"padding", {}},
                {"added_tokens", {}},
                {"normalizer", {nullptr}},
                {"pre_tokenizer", {}},
                {"post_processor", {}},
                {"decoder", {}},
                {"model", {}}});
  check_byte_level(member(root, "pre_tokenizer", where), where, "pre_tokenizer", true);
  for (const char* stage : {"post_processor", "decoder"}) {
    const json value = root.value(stage, json());
    if (!value.is_null()) check_byte_level(value, where, stage, false);
  }
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
                {"ignore_merges", {false, nullptr}},
                {"vocab", {}},
                {"merges", {}}});
}

void read_added_tokens(const json& root, const std::string& label, SpecialReader& special) {
  const json added = root.value("added_tokens", json::array());
  if (!added.is_array()) throw Error(label + ": \"added_tokens\" is " + shown(added) + "; expected a list");
  std::optional<json> normalized;
  for (std::size_t i = 0; i < added.size(); ++i) {
    const std::string where = label + ", added_tokens[" + std::to_string(i) + "]";
    const std::string content = read_added_token(added[i], where);
    // Tokens of the two kinds are looked for one after the other; of one kind alone, the order cannot matter.
    const json kind = added[i].value("normalized", json(false));
    if (normalized && *normalized != kind) {
      throw Error(where + ": added token " + in_quotes(content) + " has \"normalized\": " + shown(kind) +
                  "; expected the same value for all added tokens; rometrace does not know a mixture");
    }
    normalized = kind;
    special.add(content, read_id(member(added[i], "id", where), where, content), where);
  }
}

void read_merges_list(const json& list, const std::string& label, BpeVocabulary& vocabulary) {
  if (!list.is_array()) throw Error(label + ": \"model.merges\" is " + shown(list) + "; expected a list");
  MergeReader merges(vocabulary, "\"model.vocab\"");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const json& merge = list[i];
    const std::string where = label + ", model.merges[" + std::to_string(i) + "]";
    if (merge.is_string()) {
      merges.add(merge.get_ref<const std::string&>(), where);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.add(merge[0].get<std::string>(), merge[1].get<std::string>(), where);
    } else {
      throw Error(where + ": found " + shown(merge) + R"(; expected "a b" or ["a", "b"])");
    }
  }
}

}  // namespace

BpeVocabulary read_vocab_and_merges(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt) {
  const std::string label = label_of(vocab_json);
  const std::filesystem::path folder = vocab_json.parent_path();
  BpeVocabulary vocabulary;
  vocabulary.tokens = read_tokens(parse_json_file(vocab_json), label);

  SpecialReader special(vocabulary);
  const auto end_of_text = std::ranges::find(vocabulary.tokens, kEndOfText);
  if (end_of_text != vocabulary.tokens.end()) {
    special.add(std::string(kEndOfText), static_cast<std::int32_t>(end_of_text - vocabulary.tokens.begin()), label);
  }
  if (const auto file = folder / "added_tokens.json"; is_present(file)) read_added_tokens_json(file, special);
  if (const auto file = folder / "tokenizer_config.json"; is_present(file)) read_tokenizer_config(file, special);
  if (const auto file = folder / "tokenizer.json"; is_present(file)) {  // what Hugging Face would read instead
    const json root = parse_json_file(file);
    check_pipeline(root, label_of(file));
    read_added_tokens(root, label_of(file), special);
  }
  special.finish();

  check_tokens(vocabulary, label);
  read_merges_txt(merges_txt, vocabulary, vocab_json.filename().string());
  return vocabulary;
}

BpeVocabulary read_tokenizer_json(const std::filesystem::path& tokenizer_json) {
  const std::string label = label_of(tokenizer_json);
  const json root = parse_json_file(tokenizer_json);
  check_pipeline(root, label);
  const json& model = root["model"];
  BpeVocabulary vocabulary;
  vocabulary.tokens = read_tokens(member(model, "vocab", label + ", model"), label + ", model.vocab");
  SpecialReader special(vocabulary);
  read_added_tokens(root, label, special);
  special.finish();
  check_tokens(vocabulary, label + ", model.vocab");
  read_merges_list(member(model, "merges", label + ", model"), label, vocabulary);
  return vocabulary;
}

}  // namespace rometrace
