"""smolagents' executor: the shortest example of its documentation, with a scripted model."""
from smolagents import ChatMessage, CodeAgent, MessageRole, Model


class Scripted(Model):
    answers = [
        "I compute it.\n<code>\nkept = 6 * 7\nprint('computed', kept)\n</code>",
        "I have it.\n<code>\nfinal_answer(kept)\n</code>",
    ]

    def generate(self, messages, **_):
        return ChatMessage(role=MessageRole.ASSISTANT, content=self.answers.pop(0))


with CodeAgent(model=Scripted(), tools=[], executor_type="e2b") as agent:
    print("answer:", agent.run("What is 6 times 7?"))
