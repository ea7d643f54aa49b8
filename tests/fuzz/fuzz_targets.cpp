#include "fuzz/fuzz_targets.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "edit/edit_record.hpp"
#include "facts/fact_record.hpp"
#include "facts/facts_reader.hpp"
#include "files.hpp"
#include "model/gguf.hpp"
#include "model/gguf_config.hpp"
#include "model/gguf_types.hpp"
#include "model/safetensors_header.hpp"
#include "model/torch_tensors.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/model/config.hpp"
#include "rometrace/model/weight_file.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "sentencepiece_model.hpp"
#include "text/as_text.hpp"
#include "text/gguf_header.hpp"
#include "text_streams.hpp"

namespace rometrace::fuzzing {
namespace {

using Bytes = std::span<const std::byte>;

// Texts that meet the tokenisers' corners: spaces, digits, contractions, several scripts, joined characters, controls.
constexpr std::array<std::string_view, 5> kTexts{"Miles Davis plays the", "  it's 1234\n\n\tx ",
                                                 "日本語 é e\u0301 \u00a0", "👩‍👩‍👧<|endoftext|></s>▁",
                                                 std::string_view("\0\x01 a", 4)};

[[noreturn]] void break_contract(const std::string& complaint) {
  throw std::logic_error("the contract is broken: " + complaint);
}

/// Runs `action`; an Error is an answer as good as any, if it is one line.
template <typename Action>
void allow_refusal(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    if (!testing::is_one_line(error.what()))
      break_contract("a message of more than one line: " + std::string(error.what()));
  }
}

/// A folder for the files of one run, in memory where the machine has such a place.
testing::TemporaryFolder& scratch() {
  static testing::TemporaryFolder folder;
  return folder;
}

/// Writes the only files of the folder.
const std::filesystem::path& scratch_with(const std::vector<std::pair<const char*, std::string_view>>& files) {
  for (const auto& entry : std::filesystem::directory_iterator(scratch().path())) std::filesystem::remove(entry.path());
  for (const auto& [name, content] : files) scratch().write(name, content);
  return scratch().path();
}

/// What TensorView promises.
void check_tensors(const std::vector<TensorView>& tensors, Bytes file) {
  std::set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    if (!names.insert(tensor.name).second) break_contract("the name " + tensor.name + " twice");
    if (!tensor.bytes.empty() &&
        (tensor.bytes.data() < file.data() || tensor.bytes.data() + tensor.bytes.size() > file.data() + file.size())) {
      break_contract("tensor " + tensor.name + " is outside the file");
    }
    if (!tensor.strides.empty() && tensor.strides.size() != tensor.shape.size()) {
      break_contract("tensor " + tensor.name + " has strides for other dimensions");
    }
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < tensor.strides.size(); ++i) {
      if (tensor.shape[i] < 1 || tensor.strides[i] < 0) break_contract("tensor " + tensor.name + " has a size below 1");
      last += static_cast<std::uint64_t>(tensor.shape[i] - 1) * static_cast<std::uint64_t>(tensor.strides[i]);
    }
    if (last > 0 && last >= tensor.bytes.size()) break_contract("tensor " + tensor.name + " leads outside its bytes");
  }
}

/// Uses a tokeniser on texts that it may never have been meant for.
void use(const Tokenizer& tokenizer) {
  for (const std::string_view text : kTexts) {
    for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
      allow_refusal([&] {
        std::vector<std::int32_t> ids;
        for (const Token& token : tokenizer.encode(text, special)) {
          if (token.begin > token.end || token.end > text.size()) break_contract("a token outside its text");
          if (token.id < 0 || token.id >= tokenizer.size()) break_contract("an id outside the vocabulary");
          ids.push_back(token.id);
        }
        tokenizer.decode(ids);
      });
    }
  }
  for (const std::int32_t id : {0, tokenizer.size() / 2, tokenizer.size() - 1, tokenizer.size(), -1}) {
    allow_refusal([&] { tokenizer.token_bytes(id); });
  }
}

// A byte-level vocabulary for the files beside one, and the rest of its tokenizer.json. No byte but these has a token.
constexpr std::string_view kVocabulary = R"({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<|endoftext|>": 4, "<s>": 5})";
constexpr std::string_view kRules =
    R"("version": "1.0", "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "added_tokens": [{"id": 4, "content": "<|endoftext|>", "special": true}, {"id": 5, "content": "<s>"}])";

/// A tokenizer.json of that vocabulary with more members (`"post_processor": null`, say); they go before its own.
std::string tokenizer_json(std::string_view members) {
  std::string file = "{" + std::string(kRules) + R"(, "model": {"type": "BPE", "merges": ["a b"], "vocab": )";
  file.append(kVocabulary).append("}");
  if (!members.empty()) file.append(", ").append(members);
  return file + "}";
}

/// What `Facts` promises, but for ids, which the reader leaves to its caller.
void check_facts(const Facts& facts, Need need) {
  if (facts.records.empty()) break_contract("a file without records was read");
  std::int64_t record = 0;
  for (const auto& entry : facts.records) {
    ++record;
    if (std::visit([](const auto& value) { return value.record; }, entry) != record) {
      break_contract("records are not numbered one by one");
    }
    if (const auto* bad = std::get_if<BadRecord>(&entry)) {
      if (!testing::is_one_line(bad->message)) break_contract("a message of more than one line: " + bad->message);
      continue;
    }
    const Fact& fact = std::get<Fact>(entry);
    if (fact.subject.empty()) break_contract("a fact without a subject");
    if (need == Need::kSubject) continue;
    if (fact.wordings.empty()) break_contract("a fact without a wording");
    if (fact.wordings[0].prompt.find(fact.subject) == std::string::npos) {
      break_contract("a subject that is not in its prompt");
    }
  }
}

/// What `DecoderConfig` promises.
void check_config(const DecoderConfig& read) {
  for (const std::int64_t size : {read.vocab_size, read.max_positions, read.width, read.embedding_width, read.layers,
                                  read.heads, read.kv_heads, read.head_width, read.mlp_width}) {
    if (size < 1) break_contract("a size below 1");
  }
  if (read.heads % read.kv_heads != 0) break_contract("heads that do not share keys evenly");
  if (static_cast<std::int64_t>(read.attention.size()) != read.layers) break_contract("not all layers described");
  for (const auto& layer : read.attention) {
    if (layer.window < 0) break_contract("a window below 0");
    if (!read.rotary.empty() && layer.rotary >= read.rotary.size()) break_contract("positions that are not there");
  }
  for (const auto& rotary : read.rotary) {
    const bool fits = rotary.width >= 2 && rotary.width % 2 == 0 && rotary.width <= read.head_width;
    if (!fits) break_contract("more numbers turned than a head has");
  }
  const int kinds = (read.rotary.empty() ? 0 : 1) + (read.learned_positions > 0 ? 1 : 0) + (read.alibi ? 1 : 0);
  if (kinds != 1) break_contract("not one kind of positions");
  for (const double scale : {read.attention_scale, read.output_scale, read.entry_scale, read.logit_scale}) {
    if (!(scale > 0)) break_contract("a scale that is not above 0");
  }
}

}  // namespace

void safetensors(Bytes data) {
  allow_refusal([&] { check_tensors(read_safetensors(data, "model.safetensors").tensors, data); });
}

void torch_file(Bytes data) {
  allow_refusal([&] { check_tensors(read_torch_tensors(data, "pytorch_model.bin"), data); });
}

void tokenizer(Bytes data) {
  if (data.empty()) return;
  const std::string_view text = as_text(data.subspan(1));
  if (std::to_integer<unsigned>(data[0]) % 2 == 0) {
    allow_refusal([&] { use(Tokenizer::load(scratch_with({{"tokenizer.json", text}}))); });
    return;
  }
  const std::size_t end = std::min(text.find('\0'), text.size());
  const std::string_view merges = text.substr(std::min(end + 1, text.size()));
  allow_refusal([&] {
    use(Tokenizer::load(scratch_with({{"vocab.json", text.substr(0, end)}, {"merges.txt", merges}})));
  });
}

void tokenizer_config(Bytes data) {
  if (data.empty()) return;
  std::string_view rest = as_text(data.subspan(1));
  const auto next = [&] {
    const std::string_view part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    return part;
  };
  std::vector<std::pair<const char*, std::string_view>> files;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}) {
    if (const std::string_view part = next(); !part.empty()) files.emplace_back(name, part);
  }
  static const std::string model = testing::small_model();
  const std::string_view members = next();
  const std::string json = tokenizer_json(members);
  const unsigned kind = std::to_integer<unsigned>(data[0]) % 3;
  if (kind == 0) files.emplace_back("tokenizer.model", model);
  if (kind == 1) files.insert(files.end(), {{"vocab.json", kVocabulary}, {"merges.txt", "a b\n"}});
  if (kind == 2 || !members.empty()) files.emplace_back("tokenizer.json", json);
  allow_refusal([&] { use(Tokenizer::load(scratch_with(files))); });
}

void sentencepiece(Bytes data) {
  allow_refusal([&] { use(Tokenizer::load(scratch_with({{"tokenizer.model", as_text(data)}}))); });
}

void facts(Bytes data) {
  for (const Need need : {Need::kWordings, Need::kSubject}) {
    allow_refusal([&] {
      FactsReader reader(need);
      constexpr std::size_t kMost = std::size_t{1} << 20U;
      constexpr std::size_t kStep = 61;  // few bytes, so that all is cut somewhere
      auto text = testing::stream_of(as_text(data), kStep, kMost);
      reader.read(text, {"facts", "", 0, ""});
      const Facts read = reader.take();
      check_facts(read, need);
    });
  }
}

void edit_file(Bytes data) {
  allow_refusal([&] {
    const EditRecord read = read_edit_record(data, "miles.edit");
    const std::size_t rank = read.details.requests.size();
    if (rank == 0 || read.matrices.empty()) break_contract("an edit of nothing");
    std::vector<TensorView> factors;
    for (const auto& matrix : read.matrices) {
      for (const auto* factor : {&matrix.u, &matrix.r}) {
        const auto& shape = factor->shape;
        if (shape.size() != 2 || shape[0] != static_cast<std::int64_t>(rank)) break_contract("u or r of another rank");
        if (factor->bytes.size() != rank * static_cast<std::size_t>(shape[1]) * sizeof(float)) {
          break_contract("u or r of another size");
        }
        factors.push_back(*factor);
      }
    }
    check_tensors(factors, data);
  });
}

void config(Bytes data) {
  allow_refusal([&] {
    const DecoderConfig read = parse_config(as_text(data), "config.json");
    check_config(read);
  });
}

void gguf(Bytes data) {
  allow_refusal([&] {
    const auto header = GgufHeader::read(data, "m.gguf");
    const auto tensors = gguf_tensors(data, header);
    check_tensors(tensors, data);
    for (const auto& tensor : tensors) {
      const auto* type = gguf_block_type(tensor.dtype);
      if (type == nullptr || tensor.bytes.empty()) continue;
      std::vector<float> numbers(static_cast<std::size_t>(type->numbers));
      type->read(tensor.bytes.data() + tensor.bytes.size() - type->bytes, numbers.data());  // the last one
    }
    check_config(to_config(header, tensors));
  });
  allow_refusal([&] { use(Tokenizer::load(scratch_with({{"m.gguf", as_text(data)}}) / "m.gguf")); });
}

}  // namespace rometrace::fuzzing
