#include "rometrace/text/sentencepiece_check.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

/// The field numbers of sentencepiece_model.proto that hold normalisation rules.
constexpr std::uint64_t kNormalizerSpec = 3;
constexpr std::uint64_t kDenormalizerSpec = 5;
constexpr std::uint64_t kPrecompiledCharsmap = 2;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(where + ": " + what + "; expected a SentencePiece model; is the file complete?");
}

/// Reads the fields of one protobuf message in order.
class ProtoReader {
 public:
  struct Field {
    std::uint64_t number;
    std::string_view bytes;  ///< empty for fields that are not length-delimited
  };

  ProtoReader(std::string_view message, const std::string& where) : rest_(message), where_(where) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t tag = varint();
    switch (tag & 7) {
      case 0:
        varint();
        return Field{tag >> 3, {}};
      case 1:
        take(8);
        return Field{tag >> 3, {}};
      case 2:
        return Field{tag >> 3, take(varint())};
      case 5:
        take(4);
        return Field{tag >> 3, {}};
      default:
        refuse(where_, "is not a protobuf message");
    }
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    refuse(where_, "is not a protobuf message");
  }

  std::string_view take(std::uint64_t length) {
    if (length > rest_.size()) refuse(where_, "ends in the middle of a field");
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(length));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
  const std::string& where_;
};

/// One unit of Darts-clone's double array (a trie in 32-bit words).
class Unit {
 public:
  explicit Unit(std::uint32_t word) : word_(word) {}
  bool has_leaf() const { return ((word_ >> 8) & 1) == 1; }
  std::uint32_t label() const { return word_ & ((1U << 31) | 0xFF); }
  std::uint32_t offset() const { return (word_ >> 10) << ((word_ & (1U << 9)) >> 6); }
  std::uint32_t value() const { return word_ & ((1U << 31) - 1); }

 private:
  std::uint32_t word_;
};

class TrieCheck {
 public:
  TrieCheck(std::string_view trie, std::size_t replacements, const std::string& where)
      : units_(trie.size() / sizeof(std::uint32_t)), replacements_(replacements), where_(where) {
    // Without units there may be no address to copy to, which memcpy must not be given.
    if (!units_.empty()) std::memcpy(units_.data(), trie.data(), units_.size() * sizeof(std::uint32_t));
  }

  /// Visits what any text could reach, and refuses what lies outside. A place is visited again only with more rules
  /// behind it, so this ends even if the trie leads in circles.
  void run() const {
    if (units_.empty()) refuse(where_, "has an empty trie of normalisation rules");
    std::vector<int> most_rules(units_.size(), -1);
    std::vector<Place> open = {{Unit(units_[0]).offset(), 0}};
    while (!open.empty()) {
      const Place place = open.back();
      open.pop_back();
      // A child lies at base XOR byte: all 256 places are looked at, whether or not there is a child.
      if ((place.base | 0xFF) >= units_.size()) refuse(where_, "has normalisation rules that lead outside the file");
      for (std::uint32_t byte = 0; byte < 256; ++byte) {
        const std::size_t child = place.base ^ byte;
        const Unit unit(units_[child]);
        const int rules = place.rules + (unit.has_leaf() ? 1 : 0);
        if (unit.label() != byte || rules <= most_rules[child]) continue;
        if (rules > kMaxRules) refuse(where_, "has too many normalisation rules for one text");
        most_rules[child] = rules;
        const std::size_t next = child ^ unit.offset();
        if (unit.has_leaf()) check_leaf(next);
        open.push_back({next, rules});
      }
    }
  }

 private:
  static constexpr int kMaxRules = 32;  // SentencePiece's buffer for the rules that match at one place

  struct Place {
    std::size_t base;  ///< its children lie at base XOR byte
    int rules;         ///< that end on the way here
  };

  void check_leaf(std::size_t leaf) const {
    if (leaf >= units_.size() || Unit(units_[leaf]).value() >= replacements_) {
      refuse(where_, "has normalisation rules that lead outside the file");
    }
  }

  std::vector<std::uint32_t> units_;
  std::size_t replacements_;  // bytes of the replacement texts, each ended by a zero byte
  const std::string& where_;
};

/// Layout: the trie's size in bytes (32 bits, little-endian), the trie, the replacement texts.
void check_rules(std::string_view rules, const std::string& where) {
  if (rules.empty()) return;
  constexpr std::size_t kHead = sizeof(std::uint32_t);
  std::uint32_t trie_bytes = 0;
  if (rules.size() < kHead) refuse(where, "has normalisation rules of " + std::to_string(rules.size()) + " bytes");
  for (std::size_t i = 0; i < kHead; ++i) {
    trie_bytes |= static_cast<std::uint32_t>(static_cast<unsigned char>(rules[i])) << (8 * i);
  }
  if (trie_bytes > rules.size() - kHead || trie_bytes % kHead != 0) {
    refuse(where, "has normalisation rules that lead outside the file");
  }
  const std::string_view replacements = rules.substr(kHead + trie_bytes);
  if (replacements.empty() || replacements.back() != '\0') {
    refuse(where, "has normalisation rules without an end");
  }
  TrieCheck(rules.substr(kHead, trie_bytes), replacements.size(), where).run();
}

}  // namespace

void check_sentencepiece_model(std::string_view model, const std::string& where) {
  constexpr std::string_view kTags = "\x0A\x12\x1A\x22\x2A";  // of the fields 1 to 5, all of them messages
  if (!model.empty() && kTags.find(model.front()) == std::string_view::npos) {
    throw Error(where +
                ": is no SentencePiece model; expected one, or the tokenizer.json of the same tokeniser beside " +
                "it (Llama 3 comes with a file of tiktoken's under this name, which is not read)");
  }
  ProtoReader fields(model, where);
  while (const auto field = fields.next()) {
    if (field->number != kNormalizerSpec && field->number != kDenormalizerSpec) continue;
    ProtoReader spec(field->bytes, where);
    while (const auto entry = spec.next()) {
      if (entry->number == kPrecompiledCharsmap) check_rules(entry->bytes, where);
    }
  }
}

}  // namespace rometrace
